"""The fault campaign: `python -m tests.campaign`; judgement.py says what counts as a violation."""
