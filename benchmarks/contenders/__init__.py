"""The servers that are compared: ours and its peers, each started as its own documentation advises."""
