/* Show what is chosen, the labels, how good the model is, and the lists. */
import {$, clock, draw, make, sized} from './dom.js';
import {hueOf, isNone, named} from './timeline.js';

const NONE_KEY = '0';
const KEYS = [...'123456789qweryasfhzv'];
/* Return words as a sentence. */
const sentence = words => words && words[0].toUpperCase() + words.slice(1) + (/[.?!]$/.test(words) ? '' : '.');
export const whole = fraction => `${Math.round(100 * fraction)}\u00a0%`;
const TITLES = {moment: 'Next moment', suggestion: 'Suggestion', segment: 'Labelled', doubt: 'Look again', marks: 'Your marks'};
const KINDS = {wrong: 'may be wrong', unknown: 'unlike all labels', disagreement: 'two answers'};

/* Put new buttons in place of the old ones. The focus stays where it was. */
function replaceButtons(root, children) {
  const index = [...root.querySelectorAll('button')].indexOf(document.activeElement);
  root.replaceChildren(...children);
  if (index >= 0) [...root.querySelectorAll('button')].at(Math.min(index, root.querySelectorAll('button').length - 1))?.focus();
}

/* Return the label of each key, the one for none of the actions last. */
export function keysOf(labels) {
  return new Map([...labels.filter(label => !label.is_background).slice(0, KEYS.length).map((label, index) => [KEYS[index], label.name]), [NONE_KEY, '']]);
}

export function showChips(root, labels, onPick) {
  const keys = new Map([...keysOf(labels)].map(([key, label]) => [label, key]));
  const counts = new Map(labels.map(label => [label.is_background ? '' : label.name, label.num_segments]));
  const names = [...labels.filter(label => !label.is_background).map(label => label.name), ''];
  const chip = label => {
    const key = keys.get(label), count = counts.get(label) ?? 0;
    const button = make('button', {type: 'button', class: label ? 'chip' : 'chip none', 'aria-label': `${named(label)}, ${count} labelled${key ? `, key ${key}` : ''}`},
      ...(key ? [make('kbd', {text: key.toUpperCase()})] : []), make('span', {text: named(label)}), make('small', {text: count}));
    button.style.setProperty('--h', hueOf(label));
    button.addEventListener('click', () => onPick(label));
    return button;
  };
  replaceButtons(root, names.map(chip));
}

/* Show what the next answer is about. `actions` has the buttons: [words, key, function, is it the main one]. */
export function showMoment(chosen, actions, hint) {
  $('moment-title').textContent = chosen ? TITLES[chosen.kind] : hint.title;
  $('moment-time').textContent = chosen ? `${clock(chosen.start_s)} to ${clock(chosen.end_s)}` : '';
  $('moment-words').textContent = sentence(chosen ? chosen.words ?? '' : hint.words);
  const guess = $('moment-guess');
  guess.hidden = !chosen || chosen.guess === null || chosen.kind === 'marks';
  if (!guess.hidden) guess.replaceChildren(
    make('p', {text: `${chosen.kind === 'segment' ? 'Labelled' : 'The model says'} `}, make('b', {text: named(chosen.guess)}), chosen.score === undefined ? '' : `, ${whole(chosen.score)}`),
    ...(chosen.score === undefined ? [] : [make('div', {class: 'bar', 'aria-hidden': 'true'}, sized('i', 'width', chosen.score))]));
  const focused = document.activeElement?.dataset?.action;
  $('moment-actions').replaceChildren(...actions.map(([words, key, run, isMain]) => {
    const button = make('button', {type: 'button', class: isMain ? '' : 'quiet', 'aria-keyshortcuts': key, 'data-action': key}, make('span', {text: words}), make('kbd', {text: key}));
    button.addEventListener('click', run);
    return button;
  }));
  if (focused) ($('moment-actions').querySelector(`[data-action="${focused}"]`) ?? $('moment-title')).focus();
}

export function showQuality(state) {
  const {accuracy, curve} = state;
  $('accuracy').textContent = accuracy ? `${whole(accuracy.value)} right` : 'Not known yet';
  $('accuracy-note').textContent = sentence(accuracy
    ? `${whole(accuracy.low)} to ${whole(accuracy.high)} with 95 % confidence; ${accuracy.protocol}.` : state.why_no_accuracy);
  $('forecast').textContent = sentence(state.forecast);
  $('curve').replaceChildren(...(curve.length > 1 ? [curveOf(curve)] : []));
}

/* Draw the accuracy over the number of labelled moments. */
function curveOf(curve) {
  const [width, height, left, bottom] = [320, 110, 42, 18];
  const most = curve.at(-1).num_segments;
  const x = count => left + (width - left - 8) * count / most, y = value => 6 + (height - bottom - 6) * (1 - value);
  const words = (text, at_x, at_y, anchor) => { const found = draw('text', {x: at_x, y: at_y, 'text-anchor': anchor}); found.textContent = text; return found; };
  const points = curve.map(point => `${x(point.num_segments).toFixed(1)},${y(point.accuracy).toFixed(1)}`).join(' ');
  const last = curve.at(-1);
  return draw('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img',
    'aria-label': `Learning curve: ${curve.map(point => `${whole(point.accuracy)} with ${point.num_segments} labels`).join(', ')}`},
    ...[0, .5, 1].flatMap(value => [draw('line', {x1: left, x2: width - 8, y1: y(value), y2: y(value)}), words(`${100 * value} %`, left - 4, y(value) + 4, 'end')]),
    words('labels', left, height - 3, 'start'), words(String(most), width - 8, height - 3, 'end'),
    draw('polyline', {points}), draw('circle', {cx: x(last.num_segments), cy: y(last.accuracy), r: 3.5}));
}

/* Show parts of videos as buttons. `describe` returns [title, note] of one. */
export function showList(root, items, chosen, describe, onPick, empty) {
  replaceButtons(root, items.length ? items.map(item => {
    const [title, note, label] = describe(item);
    const button = make('button', {type: 'button', class: isNone(label) ? 'row none' : 'row'}, make('b', {text: title}), make('span', {text: note}));
    button.style.setProperty('--h', hueOf(label));
    if (chosen(item)) button.setAttribute('aria-current', 'true');
    button.addEventListener('click', event => {
      onPick(item);
      if (!event.detail) $('moment-title').focus(); // by keyboard: what can be done with it stands there
    });
    return make('li', {}, button);
  }) : [make('li', {class: 'soft', text: empty})]);
}

export const describeSuggestion = item => [named(item.label), `${clock(item.start_s)} to ${clock(item.end_s)}, ${whole(item.score)}`, item.label];
export const describeSegment = doubtful => item => [
  named(item.label), `${clock(item.start_s)} to ${clock(item.end_s)}${item.annotator ? `, ${item.annotator}` : ''}${doubtful.has(item.id) ? ', doubtful' : ''}`, item.label];
export const describeDoubt = nameOf => item => [
  item.kind === 'unknown' ? KINDS.unknown : `${named(item.label)}: ${KINDS[item.kind]}`,
  `${nameOf(item.video)}, ${clock(item.start_s)} to ${clock(item.end_s)}${item.kind === 'unknown' ? '' : `; others say ${named(item.model_label)}`}`, item.label];
