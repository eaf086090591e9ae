/** Cards in the outputs of notebooks, and in the main area: `application/vnd.nbflow.card+json`. */

import { MainAreaWidget } from '@jupyterlab/apputils';
import type { IRenderMime, IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { Widget } from '@lumino/widgets';

import type { Chart, Page } from '../drawing/frame';
import { CardFrame } from '../drawing/frame';

export const CARD = 'application/vnd.nbflow.card+json';
const VEGA = /^application\/vnd\.vegalite\.v(\d+)\+json$/;
/** Before HTML, which says the same where this renderer is missing. */
const RANK = 10;

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** The page's renderers in; what draws a Vega-Lite chart with them, none fetched from elsewhere, out. */
export function chartsOf(registry: IRenderMimeRegistry): Chart {
  return async specification => {
    const schema = text((specification as { $schema?: unknown }).$schema);
    const wanted = /\/v(\d+)/.exec(schema)?.[1];
    const known = registry.mimeTypes.filter(mime => VEGA.test(mime)).sort();
    const mime = known.find(one => VEGA.exec(one)?.[1] === wanted) ?? known[known.length - 1];
    if (!mime) {
      throw new Error('the page draws no charts');
    }
    const model = registry.createModel({ data: { [mime]: specification as ReadonlyPartialJSONObject }, trusted: true });
    const renderer = registry.createRenderer(mime);
    try {
      await renderer.renderModel(model);
      const image = model.data['image/png']; // which the renderer leaves there for pages that draw no charts
      if (typeof image !== 'string') {
        throw new Error('the chart was not drawn');
      }
      return `data:image/png;base64,${image}`;
    } finally {
      renderer.dispose();
    }
  };
}

/** A card as the page of a widget. */
class CardWidget extends Widget {
  protected readonly frame: CardFrame;

  constructor(chart: Chart) {
    super();
    this.frame = new CardFrame(chart);
    this.node.append(this.frame.root);
  }

  override dispose(): void {
    if (!this.isDisposed) {
      this.frame.dispose();
      super.dispose();
    }
  }

  show_(page: Page): Promise<void> {
    return this.frame.show(page);
  }
}

class RenderedCard extends CardWidget implements IRenderMime.IRenderer {
  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const data = (model.data[CARD] ?? {}) as { title?: unknown; html?: unknown; height?: unknown };
    const height = typeof data.height === 'number' ? Math.min(Math.max(data.height, 60), 900) : 300;
    await this.show_({ title: text(data.title), html: text(data.html), trusted: model.trusted, height });
  }
}

/** What shows cards in notebooks; in one that is not trusted a card is a picture of itself: it runs and loads nothing. */
export function rendererOf(registry: IRenderMimeRegistry): IRenderMime.IRendererFactory {
  return {
    safe: true,
    mimeTypes: [CARD],
    defaultRank: RANK,
    createRenderer: () => new RenderedCard(chartsOf(registry))
  };
}

/** A card that this user's kernel has made in; a widget for the main area out. */
export function cardInMain(title: string, html: string, chart: Chart): MainAreaWidget {
  const content = new CardWidget(chart);
  content.addClass('nbf-card-page');
  content.title.label = title;
  content.title.closable = true;
  void content.show_({ title, html, trusted: true, height: 600 });
  return new MainAreaWidget({ content });
}
