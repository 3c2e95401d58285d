"""What an answer may look like: from a JSON schema to a grammar that a runner can hold its draws to."""
