const form = document.querySelector('form');
const cards = [...document.querySelectorAll('.change')];
const shown = () => cards.filter(card => !card.hidden);
function filter() {
  const kinds = new Set([...form.querySelectorAll('[name=kind]:checked')].map(box => box.value));
  const label = form.elements.label.value;
  for (const one of document.querySelectorAll('[data-kind]')) {
    one.hidden = !(kinds.has(one.dataset.kind) && (!label || one.dataset.labels.split(' ').includes(label)));
  }
  // The bars of unchanged spans stay where all labels are shown: they say what lies around a change.
  if (!label) for (const bar of document.querySelectorAll('.track .unchanged')) bar.hidden = false;
  for (const video of document.querySelectorAll('section')) {
    video.hidden = Boolean(label || !kinds.size) && !video.querySelector('.change:not([hidden])');
  }
  document.getElementById('count').textContent = `${shown().length} listed.`;
}
if (form) {
  form.addEventListener('change', filter);
  form.addEventListener('submit', event => event.preventDefault());
  filter();
}
for (const bar of document.querySelectorAll('.track a')) bar.addEventListener('click', event => {
  event.preventDefault();
  const card = bar.closest('section').querySelector(`.change[data-change="${bar.dataset.change}"]`);
  card.hidden = false;
  card.focus();
  card.scrollIntoView({block: 'center'});
});
document.addEventListener('keydown', event => {
  const step = {j: 1, k: -1}[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey || event.target.matches('select, input[type=text]')) return;
  const list = shown(), at = list.indexOf(document.activeElement);
  const next = list[at < 0 ? (step > 0 ? 0 : list.length - 1) : Math.max(0, Math.min(list.length - 1, at + step))];
  if (next) { next.focus(); next.scrollIntoView({block: 'center'}); }
});
