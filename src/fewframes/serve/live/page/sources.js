/* The cards of the sources. */
import {make, sized} from './dom.js';
import {arrange, counted, percent, say} from './api.js';

const STATES = {opening: 'opening', answering: 'answering', stalled: 'stalled', away: 'away, trying again', lost: 'lost', ended: 'ended',
  nobody: 'nobody there', resting: 'resting until its hours'};
const STILL_MS = 2000;

class Card {
  constructor() {
    this.name = make('span');
    this.state = make('span');
    this.label = make('p', {class: 'big'});
    this.about = make('p', {class: 'soft'});
    this.failure = make('p', {class: 'failure'});
    this.still = make('img', {class: 'still', alt: ''});
    this.scores = make('div', {class: 'scores'});
    this.counts = make('p', {class: 'counts'});
    this.notes = make('ol', {class: 'notes'});
    this.element = make('article', {class: 'source'}, make('h3', {}, this.name, this.state),
      make('div', {class: 'head'}, this.still, make('div', {}, this.label, this.about)), this.failure, this.scores, this.counts, this.notes);
    this.still.hidden = true;
    this.still.addEventListener('load', () => { this.still.hidden = false; });
    this.still.addEventListener('error', () => { this.still.hidden = true; });
  }

  show(values) {
    this.values = values;
    const {answer} = values;
    say(this.name, [values.source, values.zone, values.person && `person ${values.person}`, values.model].filter(Boolean).join(' \u00b7 '));
    say(this.state, STATES[values.state]);
    this.state.className = `state ${values.state}`;
    say(this.label, answer ? answer.label ?? 'nothing certain' : 'no answer yet');
    say(this.failure, values.error);
    const going = (answer?.going_on ?? []).map(span => `${span.label} for ${span.lasts_s.toFixed(1)}\u00a0s`);
    if (answer && answer.repetitions !== null) going.push(counted(answer.repetitions, 'repetition'));
    say(this.about, answer ? [...going, `${answer.window_s.toFixed(1)}\u00a0s up to ${answer.time_s.toFixed(1)}\u00a0s`].join('; ') : '');
    this.scores.replaceChildren(...(answer?.top ?? []).flatMap(({label, score}) => [make('span', {text: label}),
      make('span', {text: percent(score)}), make('div', {class: 'bar', 'aria-hidden': 'true'}, sized('i', 'width', score))]));
    const counts = [counted(values.pictures, 'picture'), `${values.dropped.toLocaleString('en')} dropped`];
    if (answer) counts.unshift(counted(answer.answers, 'answer'), `latency ${answer.latency_p50_ms}\u00a0ms, 95\u00a0% within ${answer.latency_p95_ms}\u00a0ms`);
    if (values.reconnects) counts.push(counted(values.reconnects, 'reconnection'));
    say(this.counts, counts.join(', '));
    const notes = values.notes.map(note => `${note.time_s.toFixed(1)}\u00a0s, ${note.kind}: ${note.words}`);
    if (notes.join('\n') !== this.noted) this.notes.replaceChildren(...notes.map(text => make('li', {text})));
    this.noted = notes.join('\n');
  }

  showStill(isWanted) {
    if (!isWanted) { this.still.hidden = true; return; }
    if (!this.values.pictures) return;
    const {source, zone} = this.values;
    this.still.src = `api/still?source=${encodeURIComponent(source)}&zone=${encodeURIComponent(zone)}&at=${Date.now()}`;
  }
}

export class Sources {
  constructor(parent, wantsStills) {
    this.parent = parent;
    this.cards = new Map();
    this.wantsStills = wantsStills;
    setInterval(() => this.showStills(), STILL_MS);
  }

  show(entries) {
    for (const key of this.cards.keys()) if (!entries.has(key)) this.cards.delete(key);
    for (const [key, values] of entries) {
      if (!this.cards.has(key)) {
        this.cards.set(key, new Card());
        this.cards.get(key).show(values);
        this.cards.get(key).showStill(this.wantsStills());
      } else this.cards.get(key).show(values);
    }
    const ordered = [...this.cards.values()].sort((one, other) => one.values.position - other.values.position);
    arrange(this.parent, ordered.map(card => card.element));
  }

  /* A source that does not answer shows its last picture on. */
  showStills() {
    if (document.hidden) return;
    for (const card of this.cards.values()) if (!this.wantsStills() || ['answering', 'nobody'].includes(card.values.state)) card.showStill(this.wantsStills());
  }
}
