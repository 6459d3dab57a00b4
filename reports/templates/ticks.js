// Numbers along logarithmic axes, as reports/ticks.py has them in the figures: three at least, none on another.
"use strict";

function plain(value) {
  return Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(0) : `${+value.toPrecision(3)}`;
}

// At 1, 2 and 5 times the powers of ten between the least and the largest value, at fewer over many decades, at
// even steps where those are too few: the first of these that fit.
function decades(values, fit = () => true) {
  const low = Math.min(...values.filter((one) => one > 0)), high = Math.max(...values);
  const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1);
  const inside = (digits, stride = 1) => powers.filter((one) => one % stride === 0).flatMap((power) => digits.map((one) => +`${one}e${power}`)).filter((one) => one >= low && one <= high);
  const all = [inside([1, 2, 5]), inside([1, 5]), inside([1]), ...d3.range(2, powers.length).map((stride) => inside([1], stride))];
  if (high / low < 20) all.push(...[4, 5, 3, 6, 7, 8].map((count) => d3.ticks(low, high, count)));
  const fitting = all.filter(fit);
  return fitting.find((ticks) => ticks.length > 2) ?? d3.greatest(fitting, (ticks) => ticks.length) ?? [];
}

// Whether the numbers of ticks keep apart on an axis from low to high of so many pixels.
function keepApart(low, high, pixels, across) {
  const place = (value) => (Math.log(value / low) / Math.log(high / low)) * pixels;
  const needed = (value) => (across ? 7.6 * plain(value).length + 8 : 16);
  return (ticks) => d3.pairs(ticks).every(([a, b]) => place(b) - place(a) >= (needed(a) + needed(b)) / 2);
}
