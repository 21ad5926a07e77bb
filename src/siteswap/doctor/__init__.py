"""Find out what is damaged, and repair it from undamaged copies or say that it cannot be.

`examination` reads (nothing is written), `repair` writes (docs/crash-safety.md has its order, D1 to D11).
"""
