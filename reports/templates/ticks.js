// Numbers along logarithmic axes, as reports/ticks.py has them in the figures: three at least, none on another.
"use strict";

function plain(value) {
  return Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(0) : `${+value.toPrecision(3)}`;
}

// At 1, 2 and 5 times the powers of ten between the least and the largest value, at fewer over many decades, at
// even steps where those are too few: the first of these whose numbers keep apart, or what can be kept of one.
function decades(values, apart = (ticks) => ticks) {
  const low = Math.min(...values.filter((one) => one > 0)), high = Math.max(...values);
  const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
  const inside = (digits, stride = 1) => powers.filter((one) => one % stride === 0).flatMap((power) => digits.map((one) => +`${one}e${power}`)).filter((one) => one >= low && one <= high);
  const sets = [inside([1, 2, 5]), inside([1, 5]), inside([1]), ...d3.range(2, powers.length).map((stride) => inside([1], stride))];
  if (high / low < 20) sets.push(...[4, 5, 3, 6, 7, 8].map((count) => d3.ticks(low, high, count)));
  const thinned = sets.map(apart), whole = sets.filter((ticks, at) => ticks.length === thinned[at].length);
  return [...whole, ...thinned].find((ticks) => ticks.length > 2) ?? d3.greatest(thinned, (ticks) => ticks.length) ?? [];
}

// Ticks without those whose numbers would touch the one before them, on an axis from low to high of so many pixels.
function keepApart(low, high, pixels, across) {
  return (ticks) => {
    let end = -Infinity;
    return ticks.filter((value) => {
      const place = (Math.log(value / low) / Math.log(high / low)) * pixels, half = (across ? 7.6 * plain(value).length + 8 : 16) / 2;
      if (place - half < end) return false;
      end = place + half;
      return true;
    });
  };
}
