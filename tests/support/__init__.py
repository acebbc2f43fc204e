"""What the tests share: peers, certificates, attackers, programs and how they are watched."""

#: seconds after which something is stuck: never a verdict on how fast it should have been
HANG = 120.0
