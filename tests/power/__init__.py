"""Power cuts on real file systems, without cutting power.

A story is told on a disk that remembers, and the disk is rebuilt as a cut at any
moment would have left it. Read in this order:

    test_power   what is promised, and what is left out to see that it is noticed
    story        the commands, and what must be there after each
    recorder     the disk: a file served over FUSE that notes every write and flush
    record       the notes, and what a power cut leaves of them
    inspector    is it exactly the old state or the new one, and does the next command clear up?
    machine      namespaces, loop devices, mounting; and whether this machine has them
    proof        one synced file and one that is not: is the instrument itself right?

    pytest  →  recorder (FUSE server, mount namespace of its own)
            →  story, inspectors (mount and PID namespaces of their own; loop device over the served file,
               or over a rebuilt image)
"""
