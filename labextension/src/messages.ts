/**
 * The messages between the kernel and a page: the mirror of `nbflow/page/messages.py`, which says what they mean.
 * `tests/page/test_messages.py` compares the two, field by field.
 */

/** The value of `nbflow` in every message of the kernel. */
export const PROTOCOL = 2;
/** The comm target on which the kernel speaks. */
export const EVENTS = 'nbflow.events';
/** The comm target on which a page sends commands. */
export const CONTROL = 'nbflow.control';

// ---------------------------------------------------------------- what messages hold

export interface FailureView {
  type: string;
  message: string;
  traceback: string;
  cell: string | null;
  line: number | null;
  fix: string | null;
}

export interface TaskItem {
  index: number[];
  turn: number | null;
  item: string;
  state: string;
  attempt: number;
  started_at: number | null;
  elapsed: number | null;
  worker: string;
  note: string;
}

export interface StepView {
  name: string;
  label: string;
  kind: string;
  cell: string;
  position: number;
  detail: string;
  reads: string[];
  writes: string[];
  state: string;
  count: string;
  settled: number;
  total: number;
  started_at: number | null;
  elapsed: number | null;
  note: string;
  mark: string;
  why: string;
  failure: FailureView | null;
  tasks: TaskItem[];
}

export interface EdgeView {
  frm: string;
  to: string;
  names: string[];
  why: string;
}

export interface PlaceView {
  name: string;
  text: string;
  x: number;
  y: number;
  width: number;
}

export interface LineView {
  frm: string;
  to: string;
  points: number[][];
}

export interface LayoutView {
  width: number;
  height: number;
  box: number;
  places: PlaceView[];
  lines: LineView[];
}

export interface ParameterView {
  name: string;
  annotation: string;
  default: string;
  help: string;
  value: string;
}

export interface FindingView {
  level: string;
  code: string;
  message: string;
  step: string | null;
  cell: string | null;
  line: number | null;
  fix: string | null;
}

export interface CellView {
  id: string;
  position: number;
  title: string;
  names: string[];
  name: string;
}

export interface HeaderView {
  cell: string;
  is_line: boolean;
  options: string[][];
  comment: string;
}

export interface RunView {
  run: string;
  status: string;
  by_hand: boolean;
  started_at: number;
  finished_at: number | null;
  error: string | null;
  tags: string[];
}

export interface RunRow {
  run: string;
  status: string;
  by_hand: boolean;
  started_at: number;
  elapsed: number | null;
  tasks: string;
  tags: string[];
  note: string;
}

export interface ArtifactView {
  name: string;
  type: string;
  shape: string;
  size: string;
  preview: string;
}

export interface CellOutputs {
  cell: string;
  whole: boolean;
  outputs: Record<string, unknown>[];
}

export interface CellText {
  id: string;
  source: string;
  tags: string[];
}

// ---------------------------------------------------------------- kernel to page

export interface SnapshotMessage {
  nbflow: number;
  kind: 'snapshot';
  session: string;
  seq: number;
  now: number;
  flow: string;
  order: string;
  busy: boolean;
  untrusted: string;
  verified: number | null;
  run: RunView | null;
  steps: StepView[];
  workers: Record<string, string>;
  edges: EdgeView[];
  layout: LayoutView;
  parameters: ParameterView[];
  findings: FindingView[];
  cells: CellView[];
  headers: HeaderView[];
  exporters: string[];
  further: Record<string, string>;
}

export interface ChangeMessage {
  nbflow: number;
  kind: 'change';
  session: string;
  seq: number;
  base: number;
  now: number;
  busy: boolean;
  run: RunView | null;
  steps: StepView[];
  workers: Record<string, string>;
}

export interface AckMessage {
  nbflow: number;
  kind: 'ack';
  session: string;
  seq: number;
  reply_to: string;
  ok: boolean;
  text: string;
  fix: string;
}

export interface RefusedMessage {
  nbflow: number;
  kind: 'refused';
  session: string;
  seq: number;
  reply_to: string;
  text: string;
  fix: string;
}

export interface SaidMessage {
  nbflow: number;
  kind: 'said';
  session: string;
  seq: number;
  reply_to: string;
  text: string;
  fix: string;
}

export interface PageMessage {
  nbflow: number;
  kind: 'page';
  session: string;
  seq: number;
  reply_to: string;
  title: string;
  page: string;
}

export interface DetailMessage {
  nbflow: number;
  kind: 'detail';
  session: string;
  seq: number;
  reply_to: string;
  run: string;
  step: string;
  index: number[];
  log: string;
  truncated: boolean;
  artifacts: ArtifactView[];
}

export interface CardMessage {
  nbflow: number;
  kind: 'card';
  session: string;
  seq: number;
  reply_to: string;
  run: string;
  step: string;
  index: number[];
  whole: boolean;
  title: string;
  digest: string;
  page: string | null;
}

export interface OutputsMessage {
  nbflow: number;
  kind: 'outputs';
  session: string;
  seq: number;
  client: string;
  run: string;
  last: boolean;
  cells: CellOutputs[];
}

export interface RunsMessage {
  nbflow: number;
  kind: 'runs';
  session: string;
  seq: number;
  reply_to: string;
  runs: RunRow[];
}

export interface PastMessage {
  nbflow: number;
  kind: 'past';
  session: string;
  seq: number;
  reply_to: string;
  snapshot: SnapshotMessage;
}

export type KernelMessage =
  | SnapshotMessage
  | ChangeMessage
  | AckMessage
  | RefusedMessage
  | SaidMessage
  | PageMessage
  | DetailMessage
  | CardMessage
  | OutputsMessage
  | RunsMessage
  | PastMessage;

// ---------------------------------------------------------------- page to kernel

export interface HelloCommand {
  kind: 'hello';
  id: string;
  client: string;
}

export interface DocumentCommand {
  kind: 'document';
  id: string;
  cells: CellText[];
}

export interface RunCommand {
  kind: 'run';
  id: string;
  client: string;
  steps: string[];
  params: Record<string, string>;
  fresh: boolean;
  stale: boolean;
}

export interface ResumeCommand {
  kind: 'resume';
  id: string;
  client: string;
  run: string;
}

export interface CancelCommand {
  kind: 'cancel';
  id: string;
}

export interface DetailCommand {
  kind: 'detail';
  id: string;
  run: string;
  step: string;
  index: number[];
}

export interface CardCommand {
  kind: 'card';
  id: string;
  run: string;
  step: string;
  index: number[];
  whole: boolean;
  known: string;
}

export interface RunsCommand {
  kind: 'runs';
  id: string;
}

export interface PastCommand {
  kind: 'past';
  id: string;
  run: string;
}

export interface CompareCommand {
  kind: 'compare';
  id: string;
  before: string;
  after: string;
}

export interface ExportCommand {
  kind: 'export';
  id: string;
  target: string;
}

export interface VerifyCommand {
  kind: 'verify';
  id: string;
}

export interface PlacedCommand {
  kind: 'placed';
  id: string;
  run: string;
}

export interface TrustCommand {
  kind: 'trust';
  id: string;
  place: string;
}

export interface CheckCommand {
  kind: 'check';
  id: string;
  header: string;
}

export type Command =
  | HelloCommand
  | DocumentCommand
  | RunCommand
  | ResumeCommand
  | CancelCommand
  | DetailCommand
  | CardCommand
  | RunsCommand
  | PastCommand
  | CompareCommand
  | ExportCommand
  | VerifyCommand
  | PlacedCommand
  | TrustCommand
  | CheckCommand;

/** The command that runs the whole flow, which others begin with. */
export const RUN = { kind: 'run' as const, steps: [] as string[], params: {}, fresh: false, stale: false };

/** A command without its id and the page's client, as the panel makes it; whoever sends it adds them. */
export type Wish = Command extends infer C ? (C extends Command ? Omit<C, 'id' | 'client'> : never) : never;
