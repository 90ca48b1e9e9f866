"""How a response's text becomes HTML, a step in each module: formulas, code, directions, and the sanitiser, last."""
