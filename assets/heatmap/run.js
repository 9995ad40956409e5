/* ---- The run. ---- */

/* Pairs of a nested object: "a.b", value. */
function flatten(object, prefix = '', depth = 0) {
  return Object.entries(object).flatMap(([name, value]) =>
    value && typeof value === 'object' && !Array.isArray(value) && depth < 8
      ? flatten(value, prefix + name + '.', depth + 1)
      : [[clean(prefix + name), clean(typeof value === 'string' ? value : JSON.stringify(value))
          .slice(0, 400)]]);
}

const textTable = (rows) => el('table', { class: 'data text' }, el('tbody', {},
  ...rows.map(([name, text]) => el('tr', {}, el('th', {}, name), el('td', {}, text)))));

function runFacts(run) {
  const E = run.uncondExpert < 0 ? String(run.experts)
    : run.experts + ', one of them for images without a class';
  return [['file', clean(run.name)], ['images counted', run.images.toLocaleString('en')],
    ['layers with experts', run.layers.join(', ')], ['experts', E],
    ['experts of a token', run.topK ? String(run.topK) : 'the router decides'],
    ['tokens', run.tokens + ' = ' + run.side + ' x ' + run.side],
    ['steps', run.steps + (bins(run) < run.steps ? ', counted in ' + bins(run) + ' bins' : '')],
    ['halves counted', run.halves.length > 1 ? 'conditional and unconditional' : 'conditional'],
    ['gate mass', run.mass ? 'summed; this page has mean weights rounded to ' +
      format(run.halves[0].weightStep, 'weight') : 'not summed']];
}

function drawRun() {
  $('run').replaceChildren(...data.runs.flatMap((run, n) => [
    el('h2', {}, data.runs.length > 1 ? ['First run', 'Second run'][n] : 'The run'),
    textTable(runFacts(run)), el('h3', {}, 'Settings that made it'),
    run.settings.length ? textTable(run.settings) : el('p', {}, 'The file does not say.'),
  ]));
}
