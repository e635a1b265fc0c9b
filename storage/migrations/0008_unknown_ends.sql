-- What becomes of an attempt whose end nobody knows (docs/queues.md): 'retry', 'wait_deadline' or 'hold'. A program that
-- does not know this column leaves it as it is, and does 'retry'.
ALTER TABLE queues ADD COLUMN unknown text NOT NULL DEFAULT 'retry';
