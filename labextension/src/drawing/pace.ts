/** When something is drawn: ten times a second at most, only while somebody can see it, and on while clocks tick. */

const DRAW_EVERY = 100;
const TICK_EVERY = 500;

export class Pace {
  private readonly sight: IntersectionObserver;
  private readonly onVisibility = (): void => this.plan();
  private timer: number | null = null;
  private due = 0;
  private drawnAt = 0;
  private inSight = false;

  /** What is drawn, how, and whether time alone changes it. */
  constructor(
    root: HTMLElement,
    private readonly draw: () => void,
    private readonly ticks: () => boolean
  ) {
    this.sight = new IntersectionObserver(entries => {
      this.inSight = entries.some(entry => entry.isIntersecting);
      this.plan();
    });
    this.sight.observe(root);
    document.addEventListener('visibilitychange', this.onVisibility);
  }

  dispose(): void {
    this.sight.disconnect();
    document.removeEventListener('visibilitychange', this.onVisibility);
    this.stop();
  }

  /** Something has changed: it is drawn soon, if somebody can see it. */
  plan(): void {
    if (this.visible) {
      this.wait(Math.max(0, this.drawnAt + DRAW_EVERY - performance.now()));
    }
  }

  /** Draw at once: a person waits for it. */
  now(): void {
    this.drawnAt = performance.now();
    this.draw();
    if (this.visible && this.ticks()) {
      this.wait(TICK_EVERY);
    }
  }

  private wait(milliseconds: number): void {
    const due = performance.now() + milliseconds;
    if (this.timer !== null && this.due <= due) {
      return;
    }
    this.stop();
    this.due = due;
    this.timer = window.setTimeout(() => {
      this.timer = null;
      if (this.visible) {
        this.now();
      }
    }, milliseconds);
  }

  private stop(): void {
    if (this.timer !== null) {
      window.clearTimeout(this.timer);
      this.timer = null;
    }
  }

  private get visible(): boolean {
    return this.inSight && document.visibilityState === 'visible';
  }
}
