"""The Modbus TCP contract with the PLC."""
