import {$, clock, make, percent} from './dom.js';

let like = null, turn = 0;

async function search() {
  const mine = ++turn, values = {pictures: true, distinct: $('distinct').checked};
  const text = $('words-row').hidden ? '' : $('words').value.trim();
  if (text) values.text = text;
  if ($('search-label').value) values.label = $('search-label').value;
  if (like) values.like = like;
  $('search-error').textContent = '';
  if (!text && !values.label && !like) {
    $('search-error').textContent = $('words-row').hidden ? 'Choose a label' : 'Type what is to be seen, or choose a label';
    return;
  }
  $('search-status').textContent = 'Searching';
  let answer;
  try {
    const token = $('token').value;
    const found = await fetch('v1/search', {
      method: 'POST', body: JSON.stringify(values),
      headers: {'Content-Type': 'application/json', ...(token ? {Authorization: `Bearer ${token}`} : {})},
    });
    answer = await found.json();
  } catch { answer = {error: 'the server cannot be reached'}; }
  if (mine !== turn) return;
  if (answer.error) {
    $('search-status').textContent = '';
    $('search-error').textContent = answer.status === 401 ? 'This server asks for a token: type it, then search again' : answer.error;
    if (answer.status === 401) { $('token-row').hidden = false; $('token').focus(); }
    return;
  }
  const {moments, searched} = answer;
  $('search-status').textContent = `${moments.length} of ${searched} ${searched === 1 ? 'moment' : 'moments'}${moments.length ? ', the best first' : ''}`;
  $('moments').replaceChildren(...moments.map(shown));
}

function shown(moment) {
  const when = `${clock(moment.start_s)} to ${clock(moment.end_s)}`;
  const parts = Object.entries(moment.parts || {}).map(([part, {similarity, rank}]) => `${part} ${similarity.toFixed(2)} (number ${rank})`);
  const more = make('button', {type: 'button', text: 'More like this', 'aria-label': `More like ${moment.source}, ${when}`});
  more.addEventListener('click', () => {
    like = moment.id;
    $('like-name').textContent = `Like ${moment.source}, ${when}`;
    $('like-row').hidden = false;
    search();
    $('search').scrollIntoView();
  });
  return make('li', {},
    moment.picture ? make('img', {src: moment.picture, alt: ''}) : make('span', {class: 'no-still soft', text: 'no picture'}),
    make('b', {text: when}), make('span', {text: moment.source}),
    make('span', {text: `${moment.label} ${percent(moment.score)}`}),
    make('span', {class: 'soft', text: [`similarity ${moment.similarity.toFixed(3)}`, ...parts].join(', ')}), more);
}

$('search-form').addEventListener('submit', event => { event.preventDefault(); search(); });
$('like-off').addEventListener('click', () => {
  like = null;
  $('like-row').hidden = true;
  $('words').focus();
});

(async () => {
  let about;
  try { about = await (await fetch('v1/about')).json(); } catch { return; } // page.js tells that
  if (!about.search) return;
  const {moments, labels, takes_text} = about.search;
  $('search-label').append(...labels.map(label => make('option', {text: label, value: label})));
  $('words-row').hidden = !takes_text;
  $('search-note').textContent = `${moments} ${moments === 1 ? 'moment' : 'moments'}. ` + (takes_text
    ? 'With a label, only its moments are shown.' : 'Words cannot be searched here: the index was made without an encoder for them.');
  $('search').hidden = false;
})();
