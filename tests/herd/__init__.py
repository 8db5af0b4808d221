"""The rules of arrival, compared with herd7: the same litmus programs under both, and their outcome sets."""
