const choices = [...document.querySelectorAll('select')];
for (const choice of choices) choice.addEventListener('change', () => {
  for (const card of document.querySelectorAll('.card'))
    card.hidden = choices.some(({name, value}) => value && card.dataset[name] !== value);
  for (const day of document.querySelectorAll('section')) day.hidden = !day.querySelector('.card:not([hidden])');
});
