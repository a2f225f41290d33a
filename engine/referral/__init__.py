"""Decide who referred whom, once, and carry a referee's events to the referrer."""
