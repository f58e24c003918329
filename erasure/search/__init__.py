"""How a person is recognised in a text: folded words, identifiers, name parts, and the rules that join them."""
