"""Run a plugin's code in processes of its own, each for one job: `client` asks, `server` forks, `confine` closes doors.

docs/trust.md says what is enforced and what is not.
"""
