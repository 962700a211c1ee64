"""The fleet's gRPC: its contract (`v1.proto`), the code that is generated of it (`scripts/protos`), and the
forms of events and errors on that wire, for both ends."""
