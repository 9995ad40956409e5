/* ---- Panels: canvases of tiles, each a grid of cells. All lengths are device pixels. ---- */

const ratio = () => window.devicePixelRatio || 1;

function fontOf(size, weight = '') {
  return weight + ' ' + Math.round(size * ratio()) + 'px system-ui, sans-serif';
}

/* Every how many labels there is room for one. */
function every(count, cell, need) {
  for (let power = 1; ; power *= 10)
    for (const m of [1, 2, 5]) if (m * power * cell >= need || m * power >= count) return m * power;
}

function fit(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let length = text.length;
  while (length > 1 && context.measureText(text.slice(0, length) + '\u2026').width > room) length--;
  return text.slice(0, length) + '\u2026';
}

const LABEL_MAX = 130;

/* What labels of rows take up to the left of the cells. */
function gutterOf(labels, axis) {
  const u = ratio(), context = sharedCanvas.getContext('2d');
  context.font = fontOf(10);
  const widths = labels.map((label) => context.measureText(label).width);
  return Math.ceil(Math.min(Math.max(0, ...widths), LABEL_MAX * u) + 6 * u + (axis ? 13 * u : 0));
}

const sharedCanvas = document.createElement('canvas');

function cellImage(tile, scale) {
  const { rows, columns } = tile, none = noneColor();
  sharedCanvas.width = columns;
  sharedCanvas.height = rows;
  const context = sharedCanvas.getContext('2d'), image = context.createImageData(columns, rows);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) {
      const color = (tile.color ? tile.color(i, j) : colorAt(scale, tile.at(i, j))) || none;
      image.data.set([color[0], color[1], color[2], 255], 4 * (i * columns + j));
    }
  context.putImageData(image, 0, 0);
  return sharedCanvas;
}

function noneColor() {
  const text = css('--none');
  return hex(text.length === 4 ? text.slice(1).replace(/./g, '$&$&') : text.slice(1));
}

class Panel {
  constructor() {
    this.canvas = el('canvas', { role: 'img', tabindex: '0' });
    this.caption = el('figcaption');
    this.cursor = el('div', { class: 'cursor', hidden: '' });
    this.element = el('figure', { class: 'panel' }, this.caption, this.canvas, this.cursor);
    this.canvas.addEventListener('pointermove', (event) => this.point(event));
    this.canvas.addEventListener('pointerleave', () => this.leave());
    this.canvas.addEventListener('blur', () => this.leave());
    this.canvas.addEventListener('keydown', (event) => this.key(event));
  }

  /* spec: title, tiles [{ title, rows, columns, at(i, j), info(i, j), color(i, j), text(i, j),
   * image }], rowLabel(i), columnLabel(j), rowAxis, columnAxis, cell [width, height] in CSS pixels,
   * perRow (tiles side by side), own (the panel has a scale of its own), unit. */
  draw(spec, scale) {
    this.spec = spec;
    this.caption.textContent = spec.title;
    this.canvas.setAttribute('aria-label', spec.title + '. Arrow keys move over the cells.');
    this.measure();
    const context = this.canvas.getContext('2d');
    this.tiles.forEach((place, n) => this.drawTile(context, spec.tiles[n], place, scale));
    this.drawAxes(context);
    const u = ratio(), { width, height } = this.canvas, left = Math.max(this.gutter, 8 * u);
    if (spec.own)
      drawRamp(context, scale, spec.unit, left, height - 26 * u,
               clamp(width - left - 16 * u, 60 * u, 300 * u));
    this.leave();
  }

  measure() {
    const { spec } = this, u = ratio(), { rows, columns } = spec.tiles[0];
    const [cw, ch] = spec.cell.map((size) => Math.max(1, Math.round(size * u)));
    this.rowStep = every(rows, ch, 15 * u);
    this.gutter = spec.rowLabel ? gutterOf(range(rows).map(spec.rowLabel), spec.rowAxis) : 0;
    const above = (spec.tiles[0].title ? 14 : 7) * u, gap = 8 * u;
    const below = spec.columnLabel ? (spec.columnAxis ? 27 : 15) * u : 2 * u;
    this.tiles = spec.tiles.map((tile, n) => ({
      x: this.gutter + n % spec.perRow * (columns * cw + gap),
      y: above + Math.floor(n / spec.perRow) * (rows * ch + above + gap), cw, ch,
    }));
    const across = Math.min(spec.perRow, spec.tiles.length);
    const last = this.tiles[this.tiles.length - 1];
    const width = this.gutter + across * (columns * cw + gap);
    const height = last.y + rows * ch + below + (spec.own ? 34 * u : 0);
    this.canvas.width = Math.ceil(Math.max(width, spec.own ? this.gutter + 150 * u : 0));
    this.canvas.height = Math.ceil(height);
    this.canvas.style.width = this.canvas.width / u + 'px';
    this.canvas.style.height = this.canvas.height / u + 'px';
  }

  drawTile(context, tile, { x, y, cw, ch }, scale) {
    const width = tile.columns * cw, height = tile.rows * ch, u = ratio();
    context.imageSmoothingEnabled = false;
    if (tile.image) {
      context.imageSmoothingEnabled = true;
      context.drawImage(tile.image, x, y, width, height);
      context.imageSmoothingEnabled = false;
      context.globalAlpha = state.opacity;
    }
    context.drawImage(cellImage(tile, scale), x, y, width, height);
    context.globalAlpha = 1;
    if (tile.title) {
      context.font = fontOf(10);
      context.fillStyle = css('--soft');
      context.textAlign = 'left';
      context.textBaseline = 'alphabetic';
      context.fillText(fit(context, tile.title, width), x, y - 3 * u);
    }
    if (tile.text && cw >= tile.textRoom * u && ch >= 11 * u)
      this.drawTexts(context, tile, { x, y, cw, ch }, scale);
  }

  drawTexts(context, tile, { x, y, cw, ch }, scale) {
    context.font = fontOf(Math.min(11, ch / ratio() - 1));
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (let i = 0; i < tile.rows; i++)
      for (let j = 0; j < tile.columns; j++) {
        const color = tile.color ? tile.color(i, j) : colorAt(scale, tile.at(i, j));
        if (!color) continue;
        if (tile.image) { /* on a picture no single ink can be read everywhere */
          context.strokeStyle = '#000b';
          context.lineWidth = 2.5 * ratio();
          context.strokeText(tile.text(i, j), x + (j + 0.5) * cw, y + (i + 0.53) * ch);
        }
        context.fillStyle = tile.image || !light(color) ? '#fff' : '#000';
        context.fillText(tile.text(i, j), x + (j + 0.5) * cw, y + (i + 0.53) * ch);
      }
  }

  drawAxes(context) {
    const { spec } = this, u = ratio(), { rows, columns } = spec.tiles[0];
    const { x, y, cw, ch } = this.tiles[0];
    context.font = fontOf(10);
    context.fillStyle = css('--soft');
    if (spec.rowLabel) {
      context.textAlign = 'right';
      context.textBaseline = 'middle';
      for (let i = 0; i < rows; i += this.rowStep)
        context.fillText(fit(context, spec.rowLabel(i), LABEL_MAX * u), x - 4 * u,
                         y + (i + 0.5) * ch);
    }
    if (spec.rowAxis) {
      context.save();
      context.translate(7 * u, y + rows * ch / 2);
      context.rotate(-Math.PI / 2);
      context.textAlign = 'center';
      context.fillText(spec.rowAxis, 0, 0);
      context.restore();
    }
    if (!spec.columnLabel) return;
    const widths = range(columns).map((j) => context.measureText(spec.columnLabel(j)).width);
    const step = every(columns, cw, Math.min(Math.max(...widths), 40 * u) + 8 * u);
    context.textAlign = 'center';
    context.textBaseline = 'top';
    for (let j = 0; j < columns; j += step)
      context.fillText(spec.columnLabel(j), x + (j + 0.5) * cw, y + rows * ch + 3 * u);
    if (spec.columnAxis)
      context.fillText(spec.columnAxis, x + columns * cw / 2, y + rows * ch + 15 * u);
  }

  point(event) {
    const u = ratio(), { rows, columns } = this.spec.tiles[0];
    const x = event.offsetX * u, y = event.offsetY * u;
    const n = this.tiles.findIndex((tile) => x >= tile.x && y >= tile.y &&
      x < tile.x + columns * tile.cw && y < tile.y + rows * tile.ch);
    if (n < 0) return this.leave();
    const tile = this.tiles[n];
    this.show(n, Math.floor((y - tile.y) / tile.ch), Math.floor((x - tile.x) / tile.cw));
  }

  show(n, i, j) {
    const u = ratio(), place = this.tiles[n], { canvas, cursor } = this;
    const left = canvas.offsetLeft + (place.x + j * place.cw) / u;
    const top = canvas.offsetTop + (place.y + i * place.ch) / u;
    this.at = [n, i, j];
    cursor.hidden = false;
    Object.assign(cursor.style, { left: left + 'px', top: top + 'px', width: place.cw / u + 'px',
                                  height: place.ch / u + 'px' });
    showTip(cursor.getBoundingClientRect(), this.spec.tiles[n].info(i, j));
  }

  leave() {
    this.cursor.hidden = true;
    this.at = null;
    $('tip').hidden = true;
  }

  key(event) {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === 'Escape') this.leave();
    if (!move[event.key]) return;
    event.preventDefault();
    const { rows, columns } = this.spec.tiles[0], across = this.spec.perRow;
    let [n, i, j] = this.at || [0, -move[event.key][0], -move[event.key][1]];
    i += move[event.key][0];
    j += move[event.key][1];
    /* over the edge of a tile into the next one */
    const target = n + Math.floor(j / columns) + across * Math.floor(i / rows);
    if (target !== n && !this.tiles[target]) return;
    this.show(target, (i + rows) % rows, (j + columns) % columns);
  }
}

function showTip(box, pairs) {
  const tip = $('tip');
  tip.replaceChildren(el('table', {}, ...pairs.map(([name, text]) =>
    el('tr', {}, el('th', {}, name), el('td', {}, text)))));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = box.right + 12 + width < innerWidth ? box.right + 12 : box.left - 12 - width;
  tip.style.left = clamp(left, 4, Math.max(4, innerWidth - width - 4)) + 'px';
  tip.style.top = clamp(box.bottom + 12 + height < innerHeight ? box.bottom + 12
    : box.top - 12 - height, 4, Math.max(4, innerHeight - height - 4)) + 'px';
}

/* A colour bar with ticks, 26 CSS pixels high. */
function drawRamp(context, scale, kind, x, y, width) {
  const u = ratio(), height = 10 * u, span = scale.high - scale.low;
  for (let i = 0; i < width; i++) {
    context.fillStyle = rgb(colorAt(scale, scale.low + span * (i + 0.5) / width));
    context.fillRect(x + i, y, 1, height);
  }
  context.font = fontOf(10);
  context.fillStyle = context.strokeStyle = css('--soft');
  context.textAlign = 'center';
  context.textBaseline = 'top';
  for (const value of ticks(scale.low, scale.high, Math.max(2, Math.floor(width / (42 * u))))) {
    const at = x + (value - scale.low) / span * width;
    context.fillRect(Math.round(at), y + height, Math.max(1, Math.round(u)), 3 * u);
    context.fillText(tickText(value, kind, span), at, y + height + 4 * u);
  }
}

function tickText(value, kind, span) {
  if (kind === 'share') return +(100 * value).toPrecision(4) + ' %';
  if (kind === 'choices' && span >= 2) return Math.round(value).toLocaleString('en');
  return String(+value.toPrecision(6));
}

function drawBar(canvas, scale, unit) {
  const u = ratio(), width = 330 * u, context = canvas.getContext('2d');
  canvas.width = Math.ceil(width);
  canvas.height = Math.ceil(42 * u);
  Object.assign(canvas.style, { width: '330px', height: '42px' });
  canvas.setAttribute('aria-label', 'colour bar: ' + unit.text);
  context.font = fontOf(11, '600');
  context.fillStyle = css('--ink');
  context.textBaseline = 'top';
  context.fillText(unit.text, 16 * u, 0);
  drawRamp(context, scale, unit.kind, 16 * u, 15 * u, width - 32 * u);
}

/* As many panels inside `box` as there are specs; those that are there keep their focus. */
const shells = new Map();

function drawPanels(box, specs, scales) {
  if (!shells.has(box)) shells.set(box, []);
  const list = shells.get(box);
  while (list.length < specs.length) {
    list.push(new Panel());
    box.append(list[list.length - 1].element);
  }
  while (list.length > specs.length) list.pop().element.remove();
  specs.forEach((spec, n) => list[n].draw(spec, scales[n]));
}
