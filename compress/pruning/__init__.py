"""Structured pruning that keeps an absolute budget: labels, rules, units, surgery, proof."""
