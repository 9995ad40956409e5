/* ---- Numbers. ---- */

const MEASURES = [
  { name: 'largest', title: 'max / mean load', kind: 'ratio' },
  { name: 'variation', title: 'coefficient of variation of the loads', kind: 'ratio' },
  { name: 'evenness', title: 'evenness: entropy of the loads / log2 of the experts',
    kind: 'ratio' },
  { name: 'dead', title: 'dead experts', kind: 'choices' },
  { name: 'kept', title: 'choices kept from the step before', kind: 'share' },
];
const AXES = ['position', 'step', 'class'];
const numbersState = { run: 'first', half: 0, measure: 'largest' };

function card(title, value, note) {
  return el('div', { class: 'card' }, el('span', {}, title), el('b', {}, value),
            el('span', {}, note));
}

const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;

function numberCards(run, numbers) {
  const load = numbers.load, deps = numbers.dependence[run.layers.length];
  const memory = numbers.memory[run.layers.length];
  const dead = load.reduce((total, layer) => total + layer.dead, 0);
  const busiest = load.reduce((a, b, l) => b.largest > load[a].largest ? l : a, 0);
  return el('div', { class: 'cards' },
    card('max / mean load', format(mean(load.map((layer) => layer.largest)), 'ratio'),
         'mean of layers; most in ' + layerName(run, busiest)),
    card('dead experts', String(dead), 'of ' + load.reduce((n, layer) => n + layer.experts, 0)),
    ...AXES.map((axis, a) => card('told by ' + axis, format(deps[a].normalised, 'share'),
      'of the expert; shuffled ' + format(deps[a].shuffledNormalised, 'share'))),
    card('kept from step to step', format(memory.kept, 'share'),
         'by chance ' + format(memory.byChance, 'share')),
    card('guessed from the layer before', format(memory.fromLayer, 'share'),
         'best constant ' + format(memory.fromNothing, 'share')));
}

function dataTable(heads, rows, foot) {
  const line = (cells, tag) => el('tr', {}, ...cells.map((cell, i) =>
    el(i && tag !== 'th' ? 'td' : 'th', {}, cell)));
  return el('div', { class: 'scroll' }, el('table', { class: 'data' },
    el('thead', {}, line(heads, 'th')), el('tbody', {}, ...rows.map((row) => line(row))),
    ...(foot ? [el('tfoot', {}, line(foot))] : [])));
}

const LOADS = [['largest', 'max / mean'], ['smallest', 'min / mean'], ['variation', 'CV'],
               ['entropy', 'entropy, bits'], ['evenness', 'evenness']];

function loadTable(run, { load, dependence, memory }) {
  const row = (name, l, loads) => [name, ...loads,
    ...dependence[l].map((axis) => format(axis.normalised, 'share')),
    format(memory[l].kept, 'share'), format(memory[l].fromLayer, 'share')];
  const heads = ['layer', ...LOADS.map(([, head]) => head), 'experts', 'dead',
                 ...AXES.map((axis) => 'told by ' + axis), 'kept', 'from layer before'];
  return dataTable(heads, run.layers.map((layer, l) => row(String(layer), l,
    [...LOADS.map(([key]) => format(load[l][key], 'ratio')), String(load[l].experts),
     String(load[l].dead)])), row('mean', run.layers.length, Array(LOADS.length + 2).fill('')));
}

/* Bars in groups; marks are short lines across a bar: what it would be by chance. */
function barChart(label, groups, series) {
  const width = 1000, height = 230, left = 52, bottom = 34, top = 8;
  const values = series.flatMap((s) => [...s.values, ...(s.marks || [])]).filter(Number.isFinite);
  const high = Math.max(1e-9, ...values), y = (v) => top + (1 - v / high) * (height - top - bottom);
  const slot = (width - left) / groups.length, bar = Math.min(slot * 0.8 / series.length, 26);
  const out = svg('svg', { viewBox: '0 0 ' + width + ' ' + height, width, height, role: 'img',
                           'aria-label': label });
  const write = (x, at, anchor, text) =>
    out.append(svg('text', { x, y: at, 'text-anchor': anchor }, text));
  for (const value of ticks(0, high, 5)) {
    out.append(svg('line', { class: 'grid', x1: left, x2: width, y1: y(value), y2: y(value) }));
    write(left - 6, y(value) + 4, 'end', tickText(value, 'share'));
  }
  groups.forEach((group, g) => {
    const from = left + slot * (g + 0.5) - bar * series.length / 2;
    write(left + slot * (g + 0.5), height - 18, 'middle', group);
    series.forEach((s, n) => out.append(...barOf(s, g, from + n * bar, bar, y, group)));
  });
  write(left + (width - left) / 2, height - 2, 'middle', 'layer');
  return out;
}

function barOf(series, g, x, bar, y, group) {
  const value = series.values[g], mark = series.marks && series.marks[g], out = [];
  if (!Number.isFinite(value)) return out;
  const text = 'layer ' + group + ', ' + series.name + ': ' + format(value, 'share') +
    (Number.isFinite(mark) ? '; ' + series.markName + ' ' + format(mark, 'share') : '');
  out.push(svg('rect', { x: x + 1, y: y(value), width: Math.max(bar - 2, 1),
                         height: y(0) - y(value), rx: 2, fill: 'var(' + series.color + ')' },
               svg('title', {}, text)));
  if (Number.isFinite(mark))
    out.push(svg('line', { class: 'mark', x1: x, x2: x + bar, y1: y(mark), y2: y(mark) }));
  return out;
}

function chartLegend(series, markText) {
  const box = (s) => {
    const square = el('i');
    square.style.background = 'var(' + s.color + ')';
    return el('span', {}, square, s.name);
  };
  return el('div', { class: 'legend' }, ...series.map(box),
            el('span', {}, el('i', { class: 'line' }), markText));
}

function dependenceChart(run, numbers) {
  const layers = numbers.dependence.slice(0, -1);
  const series = AXES.map((axis, a) => ({
    name: axis, color: '--s' + a, markName: 'shuffled', values: layers.map((l) => l[a].normalised),
    marks: layers.map((l) => l[a].shuffledNormalised),
  }));
  return [el('h3', {}, 'What tells the expert: normalised mutual information'),
    el('p', {}, 'The share of what there is to know about the expert that position, step or ' +
      'class tells. The line is what the same numbers say after shuffling: only what is above ' +
      'it means anything.'), chartLegend(series, 'shuffled'),
    barChart('mutual information by layer', run.layers.map(String), series)];
}

function memoryChart(run, numbers) {
  const layers = numbers.memory.slice(0, -1);
  const series = [
    { name: 'choices kept from the step before', color: '--s0', markName: 'by chance',
      values: layers.map((l) => l.kept), marks: layers.map((l) => l.byChance) },
    { name: 'leading expert kept', color: '--s2', values: layers.map((l) => l.keptLeading) },
    { name: 'leading expert guessed from the layer before', color: '--s1',
      markName: 'best constant', values: layers.map((l) => l.fromLayer),
      marks: layers.map((l) => l.fromNothing) },
  ];
  return [el('h3', {}, 'What past and neighbours tell'),
    el('p', {}, 'How often a token keeps its experts from one step to the next, and how often a ' +
      'table from the leading expert of the layer before guesses the leading expert.'),
    chartLegend(series, 'by chance; best constant guess'),
    barChart('choices kept, and guessed, by layer', run.layers.map(String), series)];
}

/* Layers by steps of a measure. */
function measureMap(run, numbers, box, bar) {
  const measure = MEASURES.find((m) => m.name === numbersState.measure);
  const values = numbers.bins[measure.name], columns = values[0].length, steps = numbers.binStep;
  const scale = scaleOf(values, 'viridis', null);
  const room = Math.max(300, $('numbers').clientWidth - 120);
  drawBar(bar, scale, { text: measure.title, kind: measure.kind });
  const at = (i, j) => values[i][j] === null ? NaN : values[i][j];
  const info = (i, j) => [['layer', String(run.layers[i])],
    ['first step', String(steps[j])], ['last step', String(steps[j + 1] - 1)],
    [measure.title.split(':')[0], format(at(i, j), measure.kind)]];
  drawPanels(box, [{ title: '', rowLabel: (i) => String(run.layers[i]), rowAxis: 'layer',
    columnLabel: (j) => String(steps[j]), columnAxis: 'step', perRow: 1,
    cell: [clamp(Math.floor(Math.min(room, 1000) / columns), 1, 40),
           clamp(Math.floor(300 / values.length), 6, 22)],
    tiles: [{ rows: values.length, columns, at, info }] }], [scale]);
}

function segments(legend, name, options, chosen, change) {
  return el('fieldset', { class: 'field seg' }, el('legend', {}, legend), el('div', {},
    ...options.map(([value, text]) => {
      const input = el('input', { type: 'radio', name, value });
      input.checked = value === String(chosen);
      input.addEventListener('change', () => {
        change(value);
        /* the choices have been made anew */
        const again = document.querySelector('[name=' + name + ']:checked');
        if (again) again.focus();
      });
      return el('label', {}, input, el('span', {}, text));
    })));
}

function findingsTable(numbers) {
  const mark = { yes: 'yes', no: 'no', unclear: '' };
  const figures = (list) => list.map(([name, value]) =>
    name.replace(/_/g, ' ') + ' ' + format(value, 'ratio')).join(', ');
  return [el('h3', {}, 'What was published, and what this run shows'),
    el('table', { class: 'data text' }, el('thead', {}, el('tr', {},
      ...['published finding', 'here', 'numbers'].map((head) => el('th', {}, head)))),
    el('tbody', {}, ...numbers.findings.map(({ claim, verdict, figures: list }) => el('tr', {},
      el('td', {}, capital(claim)), el('td', { class: mark[verdict] }, verdict),
      el('td', {}, figures(list))))))];
}

function numberControls(run) {
  const change = (key) => (value) => {
    numbersState[key] = key === 'half' ? Number(value) : value;
    drawNumbers();
  };
  return el('div', { class: 'controls' },
    ...(data.runs.length < 2 ? [] : [segments('Run', 'numbers-run',
      [['first', 'First'], ['second', 'Second']], numbersState.run, change('run'))]),
    ...(run.halves.length < 2 ? [] : [segments('Half of guidance', 'numbers-half',
      [['0', 'Conditional'], ['1', 'Unconditional']], numbersState.half, change('half'))]));
}

function measurePicker(redraw) {
  const select = el('select', { 'aria-label': 'Measure' }, ...MEASURES.map((m) =>
    el('option', { value: m.name }, capital(m.title))));
  select.value = numbersState.measure;
  select.addEventListener('change', () => {
    numbersState.measure = select.value;
    redraw();
  });
  return el('div', { class: 'field pick' }, select);
}

function drawNumbers() {
  const run = runOf(numbersState.run), numbers = run.halves[numbersState.half].numbers;
  const box = el('div', { class: 'panels' }), bar = el('canvas', { role: 'img' });
  const redraw = () => measureMap(run, numbers, box, bar);
  $('numbers').replaceChildren(
    el('h2', {}, 'Numbers of the ' + ['conditional', 'unconditional'][numbersState.half] +
      ' half, all ' + run.steps + ' steps, ' + run.images.toLocaleString('en') + ' images'),
    numberControls(run), numberCards(run, numbers), ...findingsTable(numbers),
    ...dependenceChart(run, numbers), ...memoryChart(run, numbers),
    el('h3', {}, 'By layer and step'),
    el('div', { class: 'head' }, measurePicker(redraw), bar), box,
    el('h3', {}, 'By layer'), loadTable(run, numbers));
  redraw();
}

/* ---- Similarity of experts. ---- */

const SIMILAR = [
  ['weights', 'Cosine of all weights'], ['subspace', 'Overlap of leading singular vectors'],
  ['router', 'Cosine of the router\u2019s rows'],
];
const similarState = { kind: 'weights', scale: 'shared' };

/* An expert is like itself; the scale is about the others. */
const others = (matrix, n) => matrix.filter((_, k) => Math.floor(k / n) !== k % n);

function similarSpec(matrix, layer, n, digits) {
  const at = (i, j) => i === j || matrix[i * n + j] === null ? NaN : matrix[i * n + j];
  const cell = clamp(Math.floor(270 / n), 4, 40);
  const text = (value) => value.toFixed(digits).replace(/^-(0\.?0*)$/, '$1').replace('0.', '.');
  const name = (e) => expertName(first, e);
  return { title: 'Layer ' + layer, cell: [cell, cell], perRow: 1, rowLabel: name,
    columnLabel: name, rowAxis: 'expert', columnAxis: 'expert',
    tiles: [{ rows: n, columns: n, textRoom: 30, at, text: (i, j) => text(at(i, j)),
      info: (i, j) => [['layer', String(layer)], ['experts', name(i) + ' and ' + name(j)],
                       ['similarity', i === j ? 'the same' : format(at(i, j), 'ratio')]] }] };
}

function drawSimilarity() {
  const s = data.similarity, n = s.experts, { kind } = similarState;
  const matrices = s.layer.map((_, l) => s[kind].slice(l * n * n, (l + 1) * n * n));
  const signed = matrices.some((m) => others(m, n).some((v) => v < 0));
  const map = signed ? ['difference', 0] : ['viridis', null];
  const shared = scaleOf(matrices.map((m) => others(m, n)), ...map);
  const digits = Math.max(-shared.low, shared.high) < 0.1 ? 3 : 2;
  const own = similarState.scale === 'layer', bar = el('canvas', { role: 'img' });
  const box = el('div', { class: 'panels' });
  const change = (key) => (value) => { similarState[key] = value; drawSimilarity(); };
  const title = SIMILAR.find(([name]) => name === kind)[1];
  if (!own) drawBar(bar, shared, { text: title.toLowerCase(), kind: 'ratio' });
  $('similarity').replaceChildren(
    el('div', { class: 'head' }, el('div', {}, el('h2', {}, 'How alike the experts of a layer are'),
      el('p', {}, title + (kind === 'subspace' ? ', ' + s.rank + ' of each' : '') +
        ' \u00b7 the diagonal, where every expert meets itself, is left out')),
      ...(own ? [] : [bar])),
    el('div', { class: 'controls' },
      segments('Measure', 'similar-kind', SIMILAR, kind, change('kind')),
      segments('Colour scale', 'similar-scale', [['shared', 'Shared'], ['layer', 'One a layer']],
               similarState.scale, change('scale'))), box);
  drawPanels(box, s.layer.map((layer, l) =>
    ({ ...similarSpec(matrices[l], layer, n, digits), own, unit: 'ratio' })),
    matrices.map((m) => own ? scaleOf([others(m, n)], ...map) : shared));
}
