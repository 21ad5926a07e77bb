"""The rules of the protocol, one switch each: the protocol has all of them on, a planted bug has one off."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Rules:
    """What each actor has to observe."""

    # Start
    start_rechecks: bool = True
    """Having locked the lease, a start looks again whether its generation is the right one."""
    start_locks_before_recheck: bool = True
    """It looks after it has locked, not before."""
    start_rechecks_current: bool = True
    """It looks at where `current` points. That its number is still in place is not enough: a directory can
    have been recycled under a start that is slow to ask its own path, and be a candidate now."""
    start_sees_tombstones: bool = True
    """Where it was asked for by number, it looks that the number is no link. Comparing the lease it has open
    with the one that the path leads to is not enough: through a tombstone both are another generation's."""

    # Collect
    collect_takes_lease: bool = True
    """What is to be deleted is locked exclusively first."""
    spare_takes_lease: bool = True
    """What is to be kept as the spare, too, although nothing in it is deleted."""
    collect_looks_under_lock: bool = True
    """What is current is read under the flip lock."""
    collect_only_published: bool = True
    """A directory that history does not know is somebody's candidate."""
    collect_detaches_first: bool = True
    """The directory leaves its place before anything in it is deleted."""
    collect_exchanges: bool = True
    """Directory and tombstone change places in one step."""
    collect_outlasts_walks: bool = True
    """Nothing is deleted until path walks have ended that entered the directory before it was detached."""

    # Commit
    recycle_renews_lease: bool = True
    """A recycled directory gets a new lease file."""
    recycler_takes_lease: bool = True
    """The spare is locked exclusively while it is changed."""
    commit_completes_first: bool = True
    """A candidate is complete before it is published."""
    commit_verifies_base: bool = True
    """Under the flip lock, a commit makes sure that `current` is what it began from."""
    record_before_flip: bool = True
    """History is written before the flip."""

    # History
    void_records: bool = True
    """A record whose flip never came does not count."""
    void_anywhere: bool = True
    """Not only the last record can be void: one is void if the next does not begin where it led."""

    # Rollback
    rollback_takes_flip_lock: bool = True
    """A rollback holds the flip lock from choosing its target to the flip."""
    rollback_only_published: bool = True
    """Its target has been current before; being a directory is not enough."""

    # Recover
    recover_takes_writer_lock: bool = True
    """Only the holder of the writer lock recovers."""
    recover_reads_under_flip_lock: bool = True
    """History and `current` are read together, with no flip between them."""
    recover_looks_at_current: bool = True
    """Whether the last record counts is told by `current`."""
    recover_asks_lease: bool = True
    """A directory in staging whose lease is locked has an owner that lives: a collector at work."""
    recover_waits: bool = True
    """It waits for that lock: a start that passes by may hold it for a moment, and nobody would come back."""
    recover_leaves_link: bool = True
    """The link that is about to be renamed over `current` is removed under the flip lock only."""

    def without(self, *names: str) -> "Rules":
        """The same protocol with these rules forgotten."""
        return replace(self, **dict.fromkeys(names, False))
