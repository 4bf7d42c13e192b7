//! The C functions, by subject. Each is a name, its arguments and what it answers; `session::call` does the rest.

/// Functions about the machine: `fn name(session, arguments…) { … }`.
macro_rules! system_calls {
    ($(fn $name:ident($session:ident $(, $arg:ident: $type:ty)* $(,)?) $body:block)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $type),*) -> $crate::answer::Code {
            $crate::session::call(stringify!($name), None, |$session: &mut $crate::session::Session| -> $crate::answer::Outcome { $body })
        }
    )*};
}

/// Functions about one device, whose handle is the first argument: `fn name(target, arguments…) { … }`.
macro_rules! device_calls {
    ($(fn $name:ident($target:ident $(, $arg:ident: $type:ty)* $(,)?) $body:block)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(device: nvml_wrapper_sys::bindings::nvmlDevice_t $(, $arg: $type)*) -> $crate::answer::Code {
            let gpu = $crate::handle::Handle::decode(device).map(|handle| handle.gpu);
            $crate::session::call(stringify!($name), gpu, |session: &mut $crate::session::Session| -> $crate::answer::Outcome {
                #[allow(unused_mut, reason = "few questions change anything")]
                let mut $target = $crate::handle::Target::find(session, device)?;
                $body
            })
        }
    )*};
}

pub(crate) mod clocks;
pub(crate) mod device;
pub(crate) mod events;
pub(crate) mod fields;
pub(crate) mod gpm;
pub(crate) mod health;
pub(crate) mod links;
pub(crate) mod memory;
pub(crate) mod mig;
pub(crate) mod modes;
pub(crate) mod power;
pub(crate) mod processes;
pub(crate) mod system;
pub(crate) mod unsupported;
pub(crate) mod utilization;
