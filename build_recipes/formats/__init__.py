"""How bytes are read: ELF, fatbins, cubins, wheels, archives. No opinions."""
