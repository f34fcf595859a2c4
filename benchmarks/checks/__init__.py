"""Programs that check one claim each and write its record and table: parity, bytes, machine code, memory, scaling."""
