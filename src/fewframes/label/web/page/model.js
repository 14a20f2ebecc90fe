/* Write the model, and show how it is used. */
import {$, make} from './dom.js';
import {post} from './api.js';

// A model of few labels is seldom sure: from 0.5 on, as on this page, it finds more than from the 0.8 that a timeline begins with.
const COMMANDS = ['timeline VIDEO --threshold 0.5', 'predict VIDEO', 'stream CAMERA', 'serve'];
let isWriting = false;

export async function write() {
  $('written').showModal();
  if (isWriting) return;
  isWriting = true;
  $('written-title').textContent = 'Writing the model';
  $('written-body').replaceChildren(make('p', {text: 'The model is taught from all labels, and measured on parts that are left out. That takes up to a minute.'}), make('progress', {'aria-label': 'Writing the model'}));
  try {
    const found = await post('api/model');
    const folder = /[^\w./-]/.test(found.folder) ? `'${found.folder.replaceAll("'", "'\\''")}'` : found.folder;
    $('written-title').textContent = 'Model written';
    $('written-body').replaceChildren(
      make('p', {text: `${found.figures} Written in ${found.seconds.toFixed(1)} s.`}),
      make('p', {text: 'Use it in a terminal:'}), ...COMMANDS.map(words => commandOf(`fewframes ${words} --model ${folder}`)));
  } catch (error) {
    $('written-title').textContent = 'No model yet';
    $('written-body').replaceChildren(make('p', {class: 'problem', text: error.message}));
  }
  isWriting = false;
}

function commandOf(text) {
  const copy = make('button', {type: 'button', class: 'quiet small', text: 'Copy', 'aria-label': `Copy ${text}`}), code = make('code', {text});
  copy.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = 'Copied';
    } catch { // pages that do not come over HTTPS, or from this machine, have no clipboard
      getSelection().selectAllChildren(code);
      copy.textContent = 'Selected';
    }
  });
  return make('p', {class: 'command'}, code, copy);
}
