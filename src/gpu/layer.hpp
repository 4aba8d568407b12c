// One layer of the repformer on a device, forward and backward: the stages in their order.
#pragma once

#include <memory>
#include <optional>

#include "fold/folded.hpp"
#include "gpu/cat.hpp"
#include "gpu/frame.hpp"
#include "gpu/g1_update.hpp"
#include "gpu/g1g1.hpp"
#include "gpu/loader.hpp"
#include "gpu/local_attention.hpp"
#include "gpu/messages.hpp"
#include "gpu/pairs.hpp"
#include "gpu/product.hpp"
#include "gpu/queue.hpp"
#include "schema/config.hpp"

namespace dpa2::gpu {

