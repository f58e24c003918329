"""Drawings of scores, as matplotlib figures and as HTML."""
