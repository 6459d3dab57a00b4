"""From rows to what people read: tables with intervals, plots, comparisons, the page; without torch."""
