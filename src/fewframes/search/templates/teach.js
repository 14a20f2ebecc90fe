const options = document.getElementById('teach');
for (const button of document.querySelectorAll('.mark')) button.addEventListener('click', () => {
  const is = button.getAttribute('aria-pressed') === 'true';
  for (const one of button.parentNode.querySelectorAll('.mark')) one.setAttribute('aria-pressed', 'false');
  button.setAttribute('aria-pressed', String(!is));
  const ids = name => [...document.querySelectorAll(`.mark[name=${name}][aria-pressed=true]`)].map(one => one.value).join(',');
  options.textContent = '--teach NAME' + (ids('yes') && ' --yes ' + ids('yes')) + (ids('no') && ' --no ' + ids('no'));
});
const words = document.getElementById('words');
if (words) words.addEventListener('input', () => {
  const again = document.getElementById('again'), text = words.value.trim();
  document.getElementById('again-row').hidden = !text;
  again.textContent = `${again.dataset.command} --text '${text.replaceAll("'", `'"'"'`)}'`;
});
