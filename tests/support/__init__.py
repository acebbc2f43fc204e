"""What the tests share: peers, certificates, attackers, programs and how they are watched."""
