/** Where an arrow key leads in the graph: pure. */

import type { LayoutView, PlaceView } from '../messages';

export type ArrowKey = 'ArrowUp' | 'ArrowDown' | 'ArrowLeft' | 'ArrowRight';

/**
 * A layout, a step and an arrow key in; the step that it leads to, or null, out: to the side in its row, up and down
 * along its edges, and to the nearest row where it has none.
 */
export function neighbour(layout: LayoutView, from: string, key: ArrowKey): string | null {
  const here = layout.places.find(place => place.name === from);
  if (!here) {
    return null;
  }
  const others = layout.places.filter(place => place.name !== from);
  const forward = key === 'ArrowDown' || key === 'ArrowRight' ? 1 : -1;
  if (key === 'ArrowLeft' || key === 'ArrowRight') {
    return nearest(here, others.filter(place => place.y === here.y && (place.x - here.x) * forward > 0));
  }
  const joined = new Set(
    layout.lines.map(({ frm, to }) => {
      const [start, end] = forward > 0 ? [frm, to] : [to, frm];
      return start === from ? end : null;
    })
  );
  const linked = others.filter(place => joined.has(place.name));
  return nearest(here, linked.length ? linked : others.filter(place => (place.y - here.y) * forward > 0));
}

function nearest(here: PlaceView, places: readonly PlaceView[]): string | null {
  const distance = (place: PlaceView): number => Math.hypot(place.x - here.x, place.y - here.y);
  const closest = places.reduce<PlaceView | null>(
    (best, place) => (best !== null && distance(best) <= distance(place) ? best : place),
    null
  );
  return closest?.name ?? null;
}
