-- The part of a gateway that talks to a plugin server: instances per nginx worker, events, steps.

local cjson = require "cjson.safe"
local pdk = require "pdk"
local wire = require "wire"

local _M = {}

local LANES = 3
local MAX_RESTARTS = 5

local settings        -- {socket, routes}, written by the test
local instances = {}  -- route name -> {id}, or {} while another request is starting it
local server_pid

local function count(key)
  ngx.shared.stats:incr(key, 1, 0)
end

local function on_notification(label, pid)
  count("notifications")
  if label ~= "serverPid" then
    return
  end
  if server_pid and server_pid ~= pid then
    instances = {}
  end
  server_pid = pid
end

-- Where a route asks for scattered steps, each call of an event uses the next of several pools, so
-- that no step arrives on the connection of the call before it.
local function pool_for(event)
  if not event.lane then
    return settings.socket
  end
  count("scattered")
  event.lane = event.lane % LANES + 1
  return settings.socket .. "#" .. event.lane
end

local function call(event, method, argument)
  count("calls")
  return wire.call(settings.socket, pool_for(event), method, argument, on_notification)
end

local function start_instance(event)
  local route = event.route
  local config = { __seq__ = 1, __plugin_id = route.name, __key__ = "plugins:" .. route.name }
  for key, value in pairs(route.config or {}) do
    config[key] = value
  end
  count("started:" .. route.name .. ":" .. ngx.worker.id())
  instances[route.name] = {}
  local result, err = call(event, "plugin.StartInstance", {
    Name = route.plugin,
    Config = cjson.encode(config),
  })
  if not result then
    instances[route.name] = nil
    error("cannot start " .. route.plugin .. ": " .. tostring(err))
  end
  instances[route.name] = { id = result.Id }
  return result.Id
end

local function instance_id(event)
  local route = event.route
  local deadline = ngx.now() + 10
  while instances[route.name] and not instances[route.name].id do
    if ngx.now() > deadline then
      error("another request is still starting " .. route.name)
    end
    ngx.sleep(0.005)
  end
  local instance = instances[route.name]
  return instance and instance.id or start_instance(event)
end

-- A server that was started anew does not know our ids: start the instance again, then retry.
local function handle_event(event, phase)
  local route = event.route
  for _ = 1, MAX_RESTARTS do
    local id = instance_id(event)
    local reply, err = call(event, "plugin.HandleEvent", { InstanceId = id, EventName = phase })
    if type(err) ~= "string" or not err:lower():find("no plugin instance", 1, true) then
      return reply, err
    end
    count("restarted")
    local instance = instances[route.name]
    if instance and instance.id == id then
      instances[route.name] = nil
    end
  end
  return nil, "the server loses the instance again and again"
end

local function run_event(route, phase, event)
  count("events:" .. phase)
  event.route, event.plugin = route, route.plugin
  event.lane = route.scatter and math.random(LANES)
  local reply, err = handle_event(event, phase)
  local event_id = reply and reply.EventId
  while reply and reply.Data ~= "ret" do
    local value, method = pdk.run(event, reply.Data.Method, reply.Data.Args)
    if route.scatter then
      ngx.sleep(0.001) -- as a function that waits would: other events take the connections
    end
    reply, err = call(event, method, { EventId = event_id, Data = value })
  end
  if err then
    -- The request goes on as if the plugin were not there.
    count("failed")
    ngx.log(ngx.ERR, "[", route.plugin, "] ", phase, ": ", err)
  end
end

local function route_of_request()
  local name = ngx.var.uri:match("^/([^/]+)")
  return settings.routes[name]
end

local function has_phase(route, phase)
  for _, name in ipairs(route.phases or { "access" }) do
    if name == phase then
      return true
    end
  end
  return false
end

-- Handlers ----------------------------------------------------------------------------------------

function _M.init_worker(path)
  local file = assert(io.open(path))
  settings = assert(cjson.decode(file:read("*a")))
  file:close()
  for name, route in pairs(settings.routes) do
    route.name = name
  end
end

function _M.request_phase(phase)
  local route = route_of_request()
  if route and has_phase(route, phase) then
    ngx.ctx.shared = ngx.ctx.shared or {}
    ngx.header["x-nginx-worker"] = ngx.worker.id()
    run_event(route, phase, { shared = ngx.ctx.shared })
  end
end

function _M.log_phase()
  local route = route_of_request()
  if not (route and has_phase(route, "log")) then
    return
  end
  local saved = {
    status = ngx.status,
    request_headers = ngx.req.get_headers(),
    response_headers = ngx.resp.get_headers(),
  }
  saved.serialized = {
    client_ip = ngx.var.remote_addr,
    request = { method = ngx.req.get_method(), uri = ngx.var.request_uri },
    response = { status = ngx.status },
  }
  local event = { shared = ngx.ctx.shared or {}, saved = saved }
  -- Cosockets do not work in log_by_lua: a timer runs the event after the request.
  assert(ngx.timer.at(0, function(premature)
    if not premature then
      run_event(route, "log", event)
    end
  end))
end

function _M.stats()
  local out = { jit = jit and jit.version or ngx.null }
  for _, key in ipairs(ngx.shared.stats:get_keys(0)) do
    out[key] = ngx.shared.stats:get(key)
  end
  ngx.say(cjson.encode(out))
end

return _M
