"""The wording of incident reports, for training and, in other words, held out.

In a sentence, {s} is the service, {i} what was wrong with it, {m} the minutes, {c} the cause, {p} who fixed
it and {f} how. Marks such as <service> are incidental content, drawn afresh.
"""

from __future__ import annotations

from labsupport.pocket.sample import Split

Wordings = dict[Split, tuple[str, ...]]

INSTRUCTIONS: Wordings = {
    "train": (
        "Summarize this incident report in one sentence:\n\n{report}",
        "Summarize this incident in one sentence.\n\n{report}",
        "Give me a one-sentence summary of this report:\n{report}",
        "{report}\n\nSummarize the report above in one sentence.",
        "Please summarize: {report}",
        "One sentence, please, for the status page:\n\n{report}",
        "What happened here? Answer in one sentence.\n\n{report}",
        "{report}\n\nSummary?",
        "I need a summary of this for my boss.\n\n{report}",
        "Incident report:\n{report}\n\nWrite a summary in one sentence.",
    ),
    "heldout": (
        "Write a one-sentence summary of this incident report:\n\n{report}",
        "Can you summarize this report in one sentence?\n\n{report}",
        "{report}\n\nPlease give a summary of this incident.",
        "Here is a report from the night shift.\n\n{report}\n\nSummarize it in one sentence.",
    ),
}
IMPACTS: Wordings = {
    "train": (
        "down",
        "slow",
        "unreachable",
        "returning errors",
        "timing out",
        "dropping messages",
        "rejecting logins",
        "sending duplicates",
        "read-only",
        "serving stale data",
        "half broken",
        "out of memory",
    ),
    "heldout": ("down", "very slow", "rejecting uploads", "losing messages", "serving errors", "unreachable"),
}
OPENINGS: Wordings = {
    "train": (
        "{s} was {i} this morning.",
        "We had an incident: {s} was {i}.",
        "Customers told us that {s} was {i}.",
        "Got paged because {s} was {i}.",
        "Alert fired at <clock>: {s} is {i}.",
        "Yesterday evening {s} was {i} again.",
        "Sorry for the noise, {s} was {i}.",
        "So, {s} was {i} and nobody knew why.",
        "Service {s} was {i}, first seen at <clock>.",
        "Woke up to find {s} {i}.",
        "The dashboards showed {s} as {i}.",
        "Affected: {s} ({i}).",
    ),
    "heldout": (
        "Around <clock> we saw that {s} was {i}.",
        "My phone rang at <clock>: {s} was {i}.",
        "It was {s} this time, it was {i}.",
        "Monitoring reported {s} as {i}.",
        "Support wrote that {s} was {i}.",
    ),
}
OPENINGS_WITH_LENGTH: Wordings = {
    "train": (
        "{s} was {i} for {m} minutes this morning.",
        "For {m} minutes {s} was {i}.",
        "Incident: {s} {i}, {m} minutes.",
        "We had {m} minutes in which {s} was {i}.",
        "Got paged at <clock>, {s} was {i} for {m} min.",
        "{s} was {i} last night, {m} minutes in total.",
        "Between <clock> and whenever, {s} was {i}; {m} minutes altogether.",
        "Users saw {s} {i} for {m} minutes.",
        "Postmortem notes: {s} was {i} for about {m} minutes.",
    ),
    "heldout": (
        "Tonight {s} was {i} for {m} minutes.",
        "{m} minutes of trouble: {s} was {i}.",
        "From <clock> on, {s} was {i}, {m} minutes in all.",
        "Our {s} was {i} for {m} minutes today.",
    ),
}
LENGTHS: Wordings = {
    "train": (
        "It lasted {m} minutes.",
        "That went on for {m} minutes.",
        "Duration: {m} min.",
        "All in all {m} minutes.",
        "Took us {m} minutes to get it back.",
        "Users were affected for {m} minutes.",
        "After {m} minutes it was over.",
        "Total time: {m} minutes.",
    ),
    "heldout": (
        "The whole thing lasted {m} minutes.",
        "It was over after {m} minutes.",
        "Users felt it for {m} minutes.",
        "Length of the outage: {m} minutes.",
    ),
}
CAUSES: Wordings = {
    "train": (
        "Root cause: {c}.",
        "It happened because {c}.",
        "Turned out that {c}.",
        "The reason was that {c}.",
        "Cause: {c}.",
        "We traced it to this: {c}.",
        "After some digging we saw that {c}.",
        "Looks like {c}, nothing else changed.",
        "In the logs you can see that {c}.",
        "It was us: {c}.",
        "As far as we can tell, {c}.",
        "Why? Because {c}.",
        "The graphs say {c}.",
        "Nobody noticed that {c}.",
        "What went wrong: {c}.",
    ),
    "heldout": (
        "The root cause was that {c}.",
        "We found out that {c}.",
        "In the end the cause was simple: {c}.",
        "This was because {c}.",
        "The logs showed that {c}.",
    ),
}
REMEDIES: Wordings = {
    "train": (
        "{p} {f} and that fixed it.",
        "Fixed when {p} {f}.",
        "{p} {f}, then all was green again.",
        "It recovered after {p} {f}.",
        "Finally {p} {f}.",
        "What helped: {p} {f}.",
        "Resolved: {p} {f}.",
        "Thanks to {p}, who {f}, we are back.",
        "{p} {f}, which cleared it.",
        "In the end {p} {f} and the errors stopped.",
        "Things went back to normal once {p} {f}.",
        "Fix: {p} {f}.",
        "Then {p} {f}; error rate back to zero.",
    ),
    "heldout": (
        "{p} {f} and it recovered.",
        "It was fixed when {p} {f}.",
        "Then {p} {f} and that helped.",
        "Resolution: {p} {f}.",
        "After {p} {f}, everything was fine again.",
    ),
}
ATTEMPTS: Wordings = {
    "train": (
        "First <person> restarted the pods, no effect.",
        "<person> tried to clear the cache, that did not help.",
        "At first we suspected <service>, but it was fine.",
        "<person> scaled out to <number> replicas, which changed nothing.",
        "We rolled back <service> first; wrong track.",
        "<person> thought that the disk was full; it was not.",
        "A restart by <person> only made it worse.",
        "Blamed <service> for a while, wrongly.",
    ),
    "heldout": (
        "First <person> restarted <host>, which did not help.",
        "We suspected <service> at first, wrongly.",
        "<person> tried to scale out, no effect.",
        "We thought of <service>, but that was fine.",
    ),
}
NOISE: Wordings = {
    "train": (
        "Ticket INC-<number> has the details.",
        "<person> is writing the postmortem.",
        "p99 went up to <number> ms.",
        "About <number> customers noticed.",
        "<service> was not affected.",
        "No data was lost.",
        "The pager took <number> seconds to reach me.",
        "Coffee is out too, by the way.",
        "<person> told the customers.",
        "We should add an alert for this.",
        "Next review on Monday.",
        "Handing over to <person> now.",
        "CPU was at <number> percent at <clock>, for the record.",
        "Sorry for the short notes, it is late.",
        "Same thing happened in March.",
        "Slack was slow as well.",
        "fyi the runbook is out of date",
        "The status page was updated at <clock>.",
        "<service> retried <number> times, as it should.",
        "Will sleep now.",
    ),
    "heldout": (
        "Details are in INC-<number>.",
        "<person> will write it up tomorrow.",
        "Latency was at <number> ms by then.",
        "<number> users wrote to support.",
        "<service> kept working.",
        "Nothing was lost.",
        "<person> informed the customers at <clock>.",
        "The alert came late.",
        "More on Monday.",
        "I have to call <person> about this.",
    ),
}
