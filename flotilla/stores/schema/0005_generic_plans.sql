-- Its statements find what they want by full keys whatever the arrays hold. Left to itself PostgreSQL plans some of
-- them anew for each commit, which is a seventh of one that comes alone (benchmarks/RESULTS.md).
alter function append_facts set plan_cache_mode = 'force_generic_plan';
