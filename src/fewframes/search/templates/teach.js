const options = document.getElementById('teach');
for (const button of document.querySelectorAll('.mark')) button.addEventListener('click', () => {
  const is = button.getAttribute('aria-pressed') === 'true';
  for (const one of button.parentNode.querySelectorAll('.mark')) one.setAttribute('aria-pressed', 'false');
  button.setAttribute('aria-pressed', String(!is));
  const ids = name => [...document.querySelectorAll(`.mark[name=${name}][aria-pressed=true]`)].map(one => one.value).join(',');
  options.textContent = '--teach NAME' + (ids('yes') && ' --yes ' + ids('yes')) + (ids('no') && ' --no ' + ids('no'));
});
