/**
 * A card in a frame of its own origin: it can show, tell its height and open links, and reach nothing of the page.
 *
 * A page that comes after another one is loaded behind it and takes its place when it is there: nothing flickers.
 */

import { element } from './elements';

/** What a card may do that this kernel's user has just made. */
const TRUSTED = 'allow-scripts allow-popups allow-popups-to-escape-sandbox';
const POLICY =
  "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'";
/** What no card may do, whoever made it: no policy forbids a page to go elsewhere by itself. */
const LEAVING = 'meta[http-equiv="refresh" i], base';
/** What has no place in a card of unknown origin: a frame without scripts can still load and go elsewhere. */
const BARRED =
  'script, meta[http-equiv], base, link, iframe, frame, frameset, object, embed, form, video, audio, img:not([src^="data:"])';
const HIGHEST = 6000;

/** A Vega-Lite specification in; a picture of it as a data URI out. */
export type Chart = (specification: object) => Promise<string>;

export interface Page {
  title: string;
  html: string;
  /** Whether it was made by a kernel of this user, or stands in a notebook that is trusted. */
  trusted: boolean;
  /** About how many pixels it takes; the card itself says it better, if it may. */
  height: number;
}

/** Whether the page around is dark; where it does not say so, whether the person's system is. */
export function isDark(): boolean {
  const { jpThemeLight, vscodeThemeKind } = document.body.dataset;
  if (jpThemeLight !== undefined || vscodeThemeKind !== undefined) {
    return jpThemeLight === 'false' || /dark|contrast/.test(vscodeThemeKind ?? '');
  }
  return window.matchMedia('(prefers-color-scheme: dark)').matches;
}

/** A card and what draws charts in; the document that its frame shows out. */
export async function prepared(page: Page, chart: Chart | undefined): Promise<string> {
  // a parsed document runs nothing and loads nothing
  const made = new DOMParser().parseFromString(page.html, 'text/html');
  made.documentElement.dataset['theme'] = isDark() ? 'dark' : 'light';
  made.documentElement.dataset['inside'] = '';
  made.querySelectorAll(LEAVING).forEach(one => one.remove());
  if (!page.trusted) {
    made.querySelectorAll(BARRED).forEach(one => one.remove());
    made.querySelectorAll('*').forEach(withoutHandlers);
  } else if (chart) {
    await Promise.all([...made.querySelectorAll('.nbflow-chart')].map(one => drawChart(one, chart)));
  }
  const policy = made.createElement('meta');
  policy.httpEquiv = 'Content-Security-Policy';
  policy.content = page.trusted ? `${POLICY}; script-src 'unsafe-inline'` : POLICY;
  made.head.prepend(policy);
  return `<!doctype html>${made.documentElement.outerHTML}`;
}

function withoutHandlers(one: Element): void {
  for (const name of one.getAttributeNames()) {
    if (name.startsWith('on')) {
      one.removeAttribute(name);
    }
  }
}

/** A chart that the card shows as data becomes a picture; where that fails the data stays. */
async function drawChart(place: Element, chart: Chart): Promise<void> {
  const text = place.querySelector('.nbflow-vega')?.textContent;
  if (!text) {
    return;
  }
  try {
    const image = place.ownerDocument.createElement('img');
    image.src = await chart(JSON.parse(text) as object);
    image.alt = place.querySelector('.nbflow-note')?.textContent?.split(';')[0] ?? 'chart';
    place.replaceChildren(image);
  } catch {
    place.classList.add('nbflow-undrawn');
  }
}

/** A place for one card after another. */
export class CardFrame {
  readonly root = element('div', { class: 'nbf-card' });
  private frame: HTMLIFrameElement | null = null;
  private next: HTMLIFrameElement | null = null;
  private page: Page | null = null;
  private turn = 0;
  private readonly themes: MutationObserver;
  private readonly heard = (event: MessageEvent): void => this.listen(event);

  constructor(private readonly chart?: Chart) {
    window.addEventListener('message', this.heard);
    this.themes = new MutationObserver(() => void this.load());
    this.themes.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light', 'data-vscode-theme-kind'] });
  }

  dispose(): void {
    window.removeEventListener('message', this.heard);
    this.themes.disconnect();
    this.turn += 1;
    this.root.replaceChildren();
  }

  /** A card in, shown when its frame has loaded; null takes the last one away. */
  async show(page: Page | null): Promise<void> {
    const { page: last } = this;
    if (page && last && page.html === last.html && page.trusted === last.trusted) {
      return;
    }
    this.page = page;
    await this.load();
  }

  private async load(): Promise<void> {
    const { page } = this;
    this.turn += 1;
    const { turn } = this;
    this.next?.remove();
    this.next = null;
    if (!page) {
      this.frame?.remove();
      this.frame = null;
      return;
    }
    const html = await prepared(page, this.chart);
    if (turn !== this.turn) {
      return;
    }
    const next = element('iframe', {
      class: 'nbf-card-frame', sandbox: page.trusted ? TRUSTED : '', referrerpolicy: 'no-referrer',
      title: page.title ? `Card of ${page.title}` : 'Card', srcdoc: html,
      on: { load: () => this.swap(next) }
    });
    // a frame of another scheme than its page would not let the page's ground through
    next.style.colorScheme = isDark() ? 'dark' : 'light';
    next.style.height = this.frame?.style.height ?? `${page.height}px`;
    if (this.frame) {
      next.classList.add('nbf-behind');
    }
    this.next = next;
    this.root.append(next);
  }

  private swap(next: HTMLIFrameElement): void {
    if (next !== this.next) {
      return;
    }
    this.frame?.remove();
    next.classList.remove('nbf-behind');
    this.frame = next;
    this.next = null;
  }

  /** The card says how high it is. */
  private listen(event: MessageEvent): void {
    const frame = [this.frame, this.next].find(one => one !== null && one.contentWindow === event.source);
    const height = (event.data as { nbflowHeight?: unknown } | null)?.nbflowHeight;
    if (frame && typeof height === 'number' && height > 0) {
      frame.style.height = `${Math.min(height, HIGHEST)}px`;
    }
  }
}
