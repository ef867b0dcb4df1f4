// Offsets on the wire count Unicode code points; JavaScript strings count UTF-16 units.
// Only text with surrogates needs the slow path.

const SURROGATE = /[\uD800-\uDFFF]/;

/** Number of code points in `text`. */
export function length(text) {
  if (!SURROGATE.test(text)) return text.length;
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** `text` without its first `count` code points. */
export function drop(text, count) {
  if (count <= 0) return text;
  if (!SURROGATE.test(text)) return text.slice(count);
  let index = 0;
  for (const point of text) {
    if (count === 0) break;
    index += point.length;
    count -= 1;
  }
  return text.slice(index);
}
