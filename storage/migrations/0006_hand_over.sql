-- Planned hand-over (docs/ownership.md). `claim_boot` wrote the claim: while it lives, an attempt goes on although its
-- shard has another owner by now. Means nothing without `claim_ms`; NULL costs a row nothing.
ALTER TABLE tasks ADD COLUMN claim_boot text;

-- A node that leaves still beats and fires, and gives its shards away.
ALTER TABLE nodes DROP CONSTRAINT nodes_state_check;
ALTER TABLE nodes ADD CONSTRAINT nodes_state_check CHECK (state IN ('up', 'leaving', 'dead'));
