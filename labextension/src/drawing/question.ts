/** What its user has to answer before a datastore that came from elsewhere is used: one line, and a button. */

import { button, element, setHidden } from './elements';

export class Question {
  readonly root = element('div', { class: 'nbf-question', role: 'group', 'aria-label': 'Trust' });
  private place = '';

  constructor(private readonly answer: (place: string) => void) {}

  /** The datastore in question in, empty where there is none. */
  update(place: string): void {
    setHidden(this.root, !place);
    if (place !== this.place) {
      this.place = place;
      const text = `The datastore ${place} came from elsewhere: to read its values runs code of whoever made it. Nothing of it is used before you trust it.`;
      this.root.replaceChildren(
        element('span', { text }),
        button('Trust this datastore', () => this.answer(place))
      );
    }
  }
}
