"""Charts as data: Vega-Lite specifications, drawn in the reader's browser."""
