/**
 * A notebook's kernel and the page: two channels, so that commands are heard while a cell blocks.
 *
 * The kernel keeps one comm on which it speaks; every page hears it, also one that was loaded in mid-run, since
 * messages of comms that a page does not own pass by its kernel connection all the same. Commands go over a comm of
 * the page's own. A cancel that nobody acknowledges within a second becomes an interrupt.
 */

import type { ISessionContext } from '@jupyterlab/apputils';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { JSONObject } from '@lumino/coreutils';

import type { CellText, Command, OutputsMessage, Wish } from '../messages';
import { CONTROL, EVENTS } from '../messages';
import type { Notice } from '../state/reduce';
import { isKernelMessage } from '../state/reduce';
import { Store, silence } from '../state/store';

const VERIFY_EVERY = 2000;
const GONE: ReadonlySet<Kernel.Status> = new Set(['restarting', 'autorestarting', 'starting', 'dead', 'terminating']);

/** One notebook's kernel, for as long as the notebook is open. */
export class Link {
  readonly store = new Store();
  private kernel: Kernel.IKernelConnection | null = null;
  private control: Kernel.IComm | null = null;
  private told = '';
  private verified = 0;

  constructor(
    private readonly context: ISessionContext,
    private readonly cells: () => CellText[],
    private readonly place: (outputs: OutputsMessage) => void
  ) {
    context.kernelChanged.connect(this.changed, this);
    context.statusChanged.connect(this.status, this);
    this.follow(context.session?.kernel ?? null);
  }

  dispose(): void {
    this.context.kernelChanged.disconnect(this.changed, this);
    this.context.statusChanged.disconnect(this.status, this);
    this.follow(null);
    this.store.dispose();
  }

  // ------------------------------------------------------------ which kernel

  private changed(): void {
    this.follow(this.context.session?.kernel ?? null);
  }

  private follow(kernel: Kernel.IKernelConnection | null): void {
    if (kernel === this.kernel) {
      return;
    }
    if (this.kernel && !this.kernel.isDisposed) {
      this.kernel.iopubMessage.disconnect(this.heard, this);
      this.kernel.removeCommTarget(EVENTS, this.opened);
    }
    this.kernel = kernel;
    this.store.client = kernel?.clientId ?? '';
    this.forget();
    if (kernel) {
      kernel.registerCommTarget(EVENTS, this.opened);
      kernel.iopubMessage.connect(this.heard, this);
      void this.look(kernel);
    }
  }

  private status(_: ISessionContext, status: Kernel.Status): void {
    if (GONE.has(status)) {
      this.forget();
    } else if (status === 'idle') {
      this.verify();
    }
  }

  /** Ask whether nbflow still speaks: a restart by somebody else may pass without a word. */
  verify(): void {
    const { kernel } = this;
    if (kernel && this.control && Date.now() - this.verified > VERIFY_EVERY) {
      this.verified = Date.now();
      void this.look(kernel);
    }
  }

  /** Nothing is known of this kernel any more, or not yet. */
  private forget(): void {
    this.control = null;
    this.told = '';
    this.store.dispatch({ type: 'link', link: 'none' });
    if (this.kernel && this.kernel.status !== 'dead') {
      this.store.dispatch({ type: 'link', link: 'waiting' });
    }
  }

  /** Ask whether nbflow speaks in a kernel that was there before the page. */
  private async look(kernel: Kernel.IKernelConnection): Promise<void> {
    const asked = this.control;
    const reply = await kernel.requestCommInfo({ target_name: EVENTS }).catch(() => null);
    if (kernel !== this.kernel || reply?.content.status !== 'ok') {
      return;
    }
    if (Object.keys(reply.content.comms).length) {
      this.open();
    } else if (asked && asked === this.control) {
      this.forget();
    }
  }

  /** The kernel begins to speak: nbflow has just been loaded. */
  private readonly opened = (): void => {
    this.control = null;
    this.open();
  };

  /** What passes by on the kernel's public channel, whoever it was meant for. */
  private heard(_: Kernel.IKernelConnection, message: KernelMessage.IIOPubMessage): void {
    if (message.header.msg_type !== 'comm_msg') {
      return;
    }
    const { data } = (message as KernelMessage.ICommMsgMsg<'iopub'>).content;
    if (isKernelMessage(data) && data.kind === 'outputs') {
      if (data.client === this.kernel?.clientId) {
        this.place(data);
        if (data.last) {
          this.send({ kind: 'placed', run: data.run });
        }
      }
    } else if (isKernelMessage(data) && data.kind !== 'ack') {
      this.tell(data);
      this.open();
    }
  }

  private tell(data: unknown): void {
    this.store.dispatch({ type: 'message', data, at: Date.now() / 1000 });
  }

  /** The channel for commands, opened once for each kernel that speaks. */
  private open(): void {
    const { kernel } = this;
    if (this.control || !kernel) {
      return;
    }
    if (this.store.state.link === 'none' || this.store.state.link === 'waiting') {
      this.store.dispatch({ type: 'link', link: 'listening' });
    }
    const control = kernel.createComm(CONTROL);
    this.control = control;
    control.onMsg = message => {
      if (this.control === control) {
        this.tell(message.content.data);
      }
    };
    control.onClose = () => {
      if (this.control === control) {
        this.forget();
      }
    };
    control.open({});
    this.send({ kind: 'hello' });
    this.tellDocument();
  }

  // ------------------------------------------------------------ commands

  /** A wish in, on its way to the kernel; its id out. */
  send(wish: Wish): string {
    if (wish.kind === 'run' || wish.kind === 'resume') {
      this.tellDocument(); // what was typed just now counts
    }
    return this.store.send(wish, command => this.deliver(command), command => this.unanswered(command));
  }

  private deliver(command: Command): void {
    if (this.control && !this.control.isDisposed) {
      this.control.send(command as unknown as JSONObject);
    }
  }

  private unanswered(command: Command): Notice | null {
    if (command.kind !== 'cancel') {
      return silence(command, '');
    }
    // after a reload the status is not known, which is not idle either
    if (this.kernel && this.kernel.status !== 'idle') {
      this.interrupt();
      return silence(command, 'The kernel did not answer and was interrupted.');
    }
    this.verified = 0;
    this.verify();
    return silence(command, 'The kernel does not answer: reload the page, or restart the kernel.');
  }

  interrupt(): void {
    void this.kernel?.interrupt();
  }

  /** Load nbflow, as a cell would, without one. */
  load(): void {
    const asked = this.kernel?.requestExecute({ code: '%load_ext nbflow', silent: false, store_history: false });
    void asked?.done.then(({ content }) => {
      if (content.status === 'error') {
        const fix = content.ename === 'ModuleNotFoundError' ? 'install nbflow where this kernel’s Python looks for packages' : '';
        this.store.dispatch({ type: 'notice', notice: { level: 'error', text: `nbflow was not loaded: ${content.evalue}`, fix } });
      }
    });
  }

  /** Tell the kernel the notebook's cells as they stand, if they are not what it was told last. */
  tellDocument(): void {
    if (!this.control) {
      return;
    }
    const cells = this.cells();
    const key = JSON.stringify(cells);
    if (key !== this.told) {
      this.told = key;
      this.send({ kind: 'document', cells });
    }
  }
}
