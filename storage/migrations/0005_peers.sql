-- What nodes prove to each other that they are of one cluster (docs/ownership.md): 244 random bits.
ALTER TABLE cluster ADD COLUMN secret bytea NOT NULL
    DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
