-- The journal. A fact is a row; (tenant, actor, seq) is the fence: two hosts can't both write seq N.
create table facts (
    tenant text not null collate "C",
    actor  text not null collate "C",  -- lists go by name, and names by time, in every locale
    seq    bigint not null check (seq > 0),
    kind   text not null,
    at     timestamptz not null,
    body   bytea not null,
    primary key (tenant, actor, seq)
);
-- One row an actor, for lists: its first fact.
create index facts_first on facts (tenant, actor desc) where seq = 1;

-- Actors that have work to go on with if their host dies. Small: only live turns are in it.
create table unfinished (
    tenant text not null,
    actor  text not null,
    since  timestamptz not null default now(),
    primary key (tenant, actor)
);

-- A row belongs to one of the tenants that the statement was made for; with none set, there are no rows.
alter table facts enable row level security;
alter table facts force row level security;
create policy tenant_only on facts
    using (tenant = any (string_to_array(nullif(current_setting('app.tenants', true), ''), ',')))
    with check (tenant = any (string_to_array(nullif(current_setting('app.tenants', true), ''), ',')));
alter table unfinished enable row level security;
-- Not forced: its owner, as whom the last function below runs, sees all; the role of the fleet doesn't.
create policy tenant_only on unfinished
    using (tenant = any (string_to_array(nullif(current_setting('app.tenants', true), ''), ',')))
    with check (tenant = any (string_to_array(nullif(current_setting('app.tenants', true), ''), ',')));

-- One round trip, one transaction, many actors: the group commit of the journal.
create function append_facts(
    tenants text[], actors text[], seqs bigint[], kinds text[], ats timestamptz[], bodies bytea[],
    begun_tenants text[], begun_actors text[], done_tenants text[], done_actors text[]
) returns void language plpgsql as $$
begin
    perform set_config('app.tenants', array_to_string(tenants, ','), true);
    insert into facts (tenant, actor, seq, kind, at, body)
        select * from unnest(tenants, actors, seqs, kinds, ats, bodies);
    -- A writer that is ahead of the record would leave a gap.
    if exists (select from unnest(tenants, actors, seqs) w (tenant, actor, seq)
               where w.seq > 1 and not exists (select from facts f
                   where f.tenant = w.tenant and f.actor = w.actor and f.seq = w.seq - 1)) then
        raise unique_violation using message = 'the expected seq is not there';
    end if;
    insert into unfinished (tenant, actor)
        select * from unnest(begun_tenants, begun_actors) on conflict do nothing;
    delete from unfinished u using unnest(done_tenants, done_actors) as d (tenant, actor)
        where u.tenant = d.tenant and u.actor = d.actor;
end $$;

create function read_facts(of_tenant text, of_actor text, after bigint, most bigint)
    returns table (seq bigint, at timestamptz, body bytea) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query select f.seq, f.at, f.body from facts f
        where f.tenant = of_tenant and f.actor = of_actor and f.seq > after order by f.seq limit most;
end $$;

create function list_actors(of_tenant text, of_kind text, before text, most bigint)
    returns table (actor text, seq bigint, at timestamptz, body bytea) language plpgsql as $$
begin
    perform set_config('app.tenants', of_tenant, true);
    return query
        select ends.actor, ends.seq, ends.at, ends.body
        from (select f.actor from facts f
              where f.tenant = of_tenant and f.seq = 1 and starts_with(f.actor, of_kind || '/')
                and (before is null or f.actor < of_kind || '/' || before)
              order by f.actor desc limit most) newest,
        lateral ((select f.actor, f.seq, f.at, f.body from facts f
                  where f.tenant = of_tenant and f.actor = newest.actor and f.seq = 1)
                 union all
                 (select f.actor, f.seq, f.at, f.body from facts f
                  where f.tenant = of_tenant and f.actor = newest.actor and f.seq > 1
                  order by f.seq desc limit 1)) ends
        order by ends.actor desc, ends.seq;
end $$;

-- The one look across tenants: names of actors only, for hosts that go on with what others left.
create function unfinished_actors(most bigint) returns table (tenant text, actor text)
    language plpgsql security definer as $$
begin
    return query select u.tenant, u.actor from unfinished u order by u.since limit most;
end $$;
