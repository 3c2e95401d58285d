"""What breaks, how, and what helps: families of causes whose parts fit together."""

from __future__ import annotations

from dataclasses import dataclass

from labsupport.pocket.sample import Split


@dataclass(frozen=True)
class Family:
    """Any thing of a family can have any of its faults, and any of its fixes helps."""

    things: tuple[str, ...]
    faults: tuple[str, ...]
    fixes: tuple[str, ...]


FAMILIES: dict[Split, tuple[Family, ...]] = {
    "train": (
        Family(
            (
                "a certificate",
                "the TLS certificate of <service>",
                "an API key for <service>",
                "the token of <service>",
            ),
            (
                "had expired",
                "was wrong",
                "had been deleted by mistake",
                "was never renewed",
                "had the wrong owner",
            ),
            (
                "renewed the certificate",
                "rotated the key",
                "put the old secret back",
                "copied the key to <host>",
            ),
        ),
        Family(
            (
                "a config change",
                "a deploy of <service>",
                "release <version>",
                "an upgrade to <version>",
                "a hotfix",
            ),
            (
                "broke the login",
                "sent traffic to the wrong zone",
                "was missing a setting",
                "dropped a header",
                "took all the memory",
                "opened <number> connections at once",
                "removed a column that was in use",
            ),
            (
                "rolled back to <version>",
                "rolled back the change",
                "put the old config back",
                "deployed <version> as a hotfix",
                "reverted the merge",
            ),
        ),
        Family(
            ("a disk on <host>", "host <host>", "the log volume", "the backup disk", "a replica on <host>"),
            (
                "ran out of space",
                "fell over",
                "did not start after the reboot",
                "stopped answering",
                "was full",
            ),
            (
                "added <number> GB of disk",
                "drained <host>",
                "restarted <host>",
                "deleted old logs",
                "moved traffic to zone <host>",
            ),
        ),
        Family(
            (
                "the connection pool",
                "the primary database",
                "a bad query",
                "a cron job",
                "the report of <service>",
            ),
            (
                "used up all connections",
                "locked a table",
                "ate the CPU",
                "held a lock for hours",
                "was too slow",
            ),
            (
                "killed the query",
                "failed over to the replica",
                "stopped the job",
                "raised the limit to <number>",
            ),
        ),
        Family(
            (
                "the message queue",
                "a retry storm from <service>",
                "a client",
                "the crawler",
                "a batch of <service>",
            ),
            (
                "blocked all traffic",
                "sent <number> requests per second",
                "overloaded the database",
                "filled up",
            ),
            (
                "blocked the noisy client",
                "emptied the queue",
                "scaled out to <number> replicas",
                "set a rate limit",
            ),
        ),
        Family(
            (
                "a feature flag",
                "a firewall rule",
                "the rate limiter",
                "the cache in front of <service>",
                "our DNS entry",
            ),
            ("was switched on too early", "was set wrong", "blocked good users", "pointed to an old address"),
            ("switched off the flag", "cleared the cache", "removed the rule", "set it back to <number>"),
        ),
        Family(
            (
                "a memory leak in <service>",
                "a loop in <service>",
                "the new model",
                "a thread pool",
                "the parser",
            ),
            ("took all the memory", "hit a limit of <number> threads", "crashed the pods", "never gave up"),
            (
                "restarted the pods",
                "doubled the memory",
                "switched to version <version>",
                "turned the feature off",
            ),
        ),
        Family(
            (
                "a network switch",
                "the load balancer",
                "the line to <host>",
                "the proxy on <host>",
                "our provider",
            ),
            (
                "lost packets",
                "was restarted by accident",
                "went dark",
                "sent every request to <host>",
                "had an outage",
            ),
            (
                "moved traffic to zone <host>",
                "replaced the switch",
                "took <host> out",
                "failed over to <host>",
            ),
        ),
    ),
    "heldout": (
        Family(
            ("a certificate on <host>", "the password of <service>", "the license key"),
            ("expired overnight", "was not valid any more", "had been changed"),
            ("installed a new certificate", "put the old key back"),
        ),
        Family(
            ("a migration to <version>", "the new config of <service>", "version <version>"),
            ("broke the checkout", "had a wrong setting", "removed an index"),
            ("rolled back version <version>", "reverted the migration"),
        ),
        Family(
            ("node <host>", "the storage volume", "the disk of <service>"),
            ("ran out of memory", "stopped working", "was almost full"),
            ("restarted node <host>", "added <number> GB of storage", "switched over to <host>"),
        ),
        Family(
            ("a load test against <service>", "the backup job on <host>", "the search index"),
            ("overloaded the cache", "blocked the queue", "used up the disk"),
            ("stopped the load test", "raised the quota to <number>", "added <number> replicas"),
        ),
    ),
}
